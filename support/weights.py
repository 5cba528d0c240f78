"""Pickled parameters and saved weights, read as data: nothing in a file is ever run as code.

The decoder knows numbers, texts, lists, dicts and tensors. pickle and torch.load are not used: they take the hash of
nested tuples, which overflows the stack and ends the kernel or takes 2**n steps, and they give a memo any size.
Reading takes at most about three times the size of the file, and 0.3 GB.
"""

import io
import itertools
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

MOST_OPERATIONS = 3 * 10**5  # of a pickle: 1 s; a tensor takes 30
LONGEST = 2**24  # bytes of a pickle without the weights; a tensor takes 150
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
PLAIN = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"}
PLAIN |= {"SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
TAKEN = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "EMPTY_LIST": 0, "EMPTY_DICT": 0, "APPEND": 1}
TAKEN |= {"SETITEM": 2} | dict.fromkeys(("TUPLE", "LIST", "DICT", "APPENDS", "SETITEMS"))  # None: up to the mark
TYPES = {"Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16}
TYPES |= {"Long": torch.int64, "Int": torch.int32, "Char": torch.int8, "Bool": torch.bool, "ComplexFloat": torch.cfloat}


def decode(stream: io.BytesIO, known: Mapping = CONSTANTS, stored: Callable | None = None) -> object:
    """Read one pickle of numbers, texts, lists and dicts; the stream then stands behind this pickle.

    Parameters
    ----------
    known : dict
        What stands for the names of functions and types that the pickle may hold.
    stored : function or None
        From what says where a tensor lies outside the pickle, a tuple, to the tensor.

    Raises
    ------
    ValueError, and nearly any other
        The pickle is damaged, or holds something else.
    """
    stack, marks, memo = [], [], {}
    for operation, argument, _ in itertools.islice(pickletools.genops(stream), MOST_OPERATIONS):
        name = operation.name
        if name == "STOP":
            return stack.pop()
        if name == "MARK":
            marks.append(len(stack))
        elif name in TAKEN:
            start = marks.pop() if TAKEN[name] is None else len(stack) - TAKEN[name]
            if start < 0:
                raise ValueError("it ends in the middle")
            items = stack[start:]
            del stack[start:]
            _gather(name.strip("123").removeprefix("EMPTY_").removesuffix("S"), items, stack)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in PLAIN:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            asked = argument or " ".join([stack.pop(), stack.pop()][::-1])
            if asked not in known:
                raise ValueError(f"it asks for {asked.replace(' ', '.'):.100}")
            stack.append(known[asked])
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(function(*arguments))
        elif name == "BINPERSID" and stored:
            stack.append(stored(*stack.pop()))
        elif name == "BUILD":
            stack.pop()  # further attributes of a dict, such as the versions of layers
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has the operation {name}")
    raise ValueError(f"it has more than {MOST_OPERATIONS} operations")


def _gather(kind, items, stack):
    if kind == "APPEND":
        stack[-1].extend(items)
    elif kind in ("TUPLE", "LIST"):
        stack.append(tuple(items) if kind == "TUPLE" else items)
    else:
        content = {} if kind == "DICT" else stack.pop()
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) and not (isinstance(key, int) and 0 <= key < 2**31):
                raise ValueError("it has keys that are no text")  # long numbers may share a hash, and take n**2 steps
            content[key] = value
        stack.append(content)


def _tensor(storage, offset, size, stride, *_):
    if len(size) > 8:
        raise ValueError("it has tensors of more than 8 dimensions")  # 10**5 would take minutes
    return torch.as_strided(storage, size, stride, offset)  # refuses what lies outside the storage


KNOWN = {f"torch {name}Storage": dtype for name, dtype in TYPES.items()}
KNOWN |= {"torch._utils _rebuild_tensor_v2": _tensor, "torch._utils _rebuild_parameter": lambda tensor, *_: tensor}
KNOWN |= {"collections OrderedDict": lambda: {}}


def read_weights(path: str | Path) -> object:
    """Read what torch.save wrote, in its present format (a zip file) or in that of before 2020."""
    storages, left = {}, Path(path).stat().st_size

    def stored(_, dtype, key, __, count, *___):
        nonlocal left
        if not isinstance(key, str):
            raise ValueError("it has keys that are no text")
        if key not in storages:
            left -= count * dtype.itemsize
            if count < 0 or left < 0:
                raise ValueError("it promises more weights than the file holds")
            storages[key] = torch.zeros(count, dtype=dtype)
        return storages[key]

    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            stream = io.BytesIO(file.read(LONGEST))
            *_, content, keys = (decode(stream, KNOWN, stored) for _ in range(5))
            file.seek(stream.tell())
            for storage in [storages[key] for key in keys if isinstance(key, str)]:
                file.read(8)  # the count, which the pickle holds too
                _fill(storage, file)
            return content
        with zipfile.ZipFile(file) as archive:
            if any(each.compress_type for each in archive.infolist()):
                raise ValueError("it is compressed")  # a bomb of 1 MB would unfold to 1 GB
            folder = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
            content = decode(io.BytesIO(archive.open(f"{folder}data.pkl").read(LONGEST)), KNOWN, stored)
            for key, storage in storages.items():
                _fill(storage, archive.open(f"{folder}data/{key}"))
    return content


def _fill(storage, file):
    content = np.frombuffer(file.read(storage.nbytes), np.uint8)
    if len(content) < storage.nbytes:
        raise ValueError("it is cut off")
    storage.view(torch.uint8).numpy()[:] = content


def load_weights(network: nn.Module, path: str | Path, advice: str) -> None:
    """Copy saved weights into a network: a state dict, also in a checkpoint, also with DataParallel's prefix "module.".

    Raises ValueError, in one line that ends with the advice, unless the file holds the weights of all layers, in
    their shapes, and finite.
    """
    try:
        content, wanted = read_weights(path), network.state_dict()
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__} and not a dict")
        found = [each for each in (content, *content.values()) if isinstance(each, dict)]
        found = [{str(name).removeprefix("module."): value for name, value in each.items()} for each in found]
        state = max(found, key=lambda each: len(each.keys() & wanted.keys()))
        foreign = [name for name in state if name not in wanted]
        if foreign:
            raise ValueError(f"it has {foreign[0]!r:.80}, which the network lacks")
        for name, weights in wanted.items():
            if not name.endswith("num_batches_tracked"):  # a number that counts nothing here, and old files lack
                _check_weights(name, state.get(name), weights)
        network.load_state_dict(state)
    except Exception as error:  # a damaged file raises nearly anything
        raise ValueError(
            f"{path} holds no weights (a saved state_dict) that fit the network: {reason_of(error)}; {advice}"
        ) from error


def reason_of(error: Exception) -> str:
    """Return what an error says, in one line of at most 300 characters."""
    return (str(error) if isinstance(error, ValueError) else repr(error)).split("\n")[0][:300]


def _check_weights(name, given, wanted):
    if not isinstance(given, torch.Tensor):
        raise ValueError(f"{name} is missing")
    if given.shape != wanted.shape:
        raise ValueError(f"{name} has the shape {list(given.shape)} and not {list(wanted.shape)}")
    if not given.is_floating_point():
        raise ValueError(f"{name} is of {given.dtype} and not of floating point numbers")
    if not given.to(wanted.dtype).isfinite().all():
        raise ValueError(f"{name} holds NaN or infinite values")
    if name.endswith("running_var") and (given < 0).any():
        raise ValueError(f"{name}, a variance, holds values below 0")
