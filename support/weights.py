"""Pickled parameters and saved weights, read as data: nothing in a file is ever run as code.

pickle and torch.load are not used: they take the hash of nested tuples, which overflows the stack and ends the kernel
or takes 2**n steps, and they give a memo any size. Here, reading takes at most 0.5 GB and 3 times the size of the
weights, which is at most 4 GB.
"""

import io
import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from support.checks import check_network, is_file, printable

WRAPPED = re.compile(r"^((module|_orig_mod|model)\.)+")  # in front of names: of DataParallel, torch.compile, Lightning
MOST = 2**32  # bytes of weights, 4 GB: those of the largest CNN, see checks.check_cnn
LONGEST = 2**22  # bytes of a pickle without its weights: at most 5 s; a tensor takes 150
HARMLESS = """
    PROTO FRAME STOP MARK POP NONE NEWTRUE NEWFALSE PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE
    SHORT_BINUNICODE BINUNICODE8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT
    GLOBAL STACK_GLOBAL REDUCE BINPERSID
"""
CODES = {getattr(pickle, name)[0] for name in HARMLESS.split()}
TYPES = {"Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16}
TYPES |= {"Long": torch.int64, "Int": torch.int32, "Char": torch.int8, "Bool": torch.bool, "ComplexFloat": torch.cfloat}
SAFE = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
SAFE |= {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8}
SAFE |= {"BOOL": torch.bool}  # the names of safetensors


def _empty_dict(decoder):  # protocol 0 fills it later, as the others do
    if decoder.pop_mark():
        raise ValueError("it has a dict that is filled at once")
    decoder.append({})


def _put(decoder, *pairs):
    content = decoder.stack[-1]
    if type(content) is not dict:  # a tensor would look for a place in itself, as deep as the key is
        raise ValueError("it puts keys into something that is not a dict")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if not isinstance(key, str) and not (isinstance(key, int) and 0 <= key < 2**31):  # long ones may share a hash
            raise ValueError("it has keys that are not text")
        content[key] = value


DISPATCH = {code: act for code, act in pickle._Unpickler.dispatch.items() if code in CODES}
DISPATCH |= {
    pickle.DICT[0]: _empty_dict,
    pickle.SETITEM[0]: lambda decoder: _put(decoder, decoder.stack.pop(-2), decoder.stack.pop()),
    pickle.SETITEMS[0]: lambda decoder: _put(decoder, *decoder.pop_mark()),
    pickle.BUILD[0]: lambda decoder: decoder.stack.pop(),  # attributes, such as the versions of layers
}


class Decoder(pickle._Unpickler):
    """Reads a pickle from a stream by Python's own decoder, of which only harmless operations are left.

    known : dict
        What stands for the names of functions and types that the pickle may hold.
    stored : function or None
        From what says where a tensor lies outside the pickle to the tensor.
    """

    dispatch = DISPATCH

    def __init__(self, stream, known=(), stored=None):
        super().__init__(stream)
        self.known, self.persistent_load = known, stored

    def find_class(self, module, name):
        """Return what is known; never import a module."""
        if f"{module}.{name}" not in self.known:
            raise ValueError(f"it asks for {module}.{name}")
        return self.known[f"{module}.{name}"]


def _tensor(storage, offset, size, stride, *_):
    if len(size) > 8:
        raise ValueError("it has tensors of more than 8 dimensions")  # 10**5 would take minutes
    tensor = torch.as_strided(storage, size, stride, offset)  # refuses what lies outside the storage
    if tensor.numel() > storage.numel():
        raise ValueError("it has a tensor of more values than are stored")
    return tensor


KNOWN = {f"torch.{name}Storage": dtype for name, dtype in TYPES.items()}
KNOWN |= {"torch._utils._rebuild_tensor_v2": _tensor, "torch._utils._rebuild_parameter": lambda tensor, *_: tensor}
KNOWN |= {"collections.OrderedDict": lambda: {}}


def read_weights(path: str | Path, known: Mapping = KNOWN) -> object:
    """Read a safetensors file, or what torch.save wrote: in its present format (a zip file) or that of before 2020.

    known : as Decoder takes it
    """
    storages, left = {}, min(Path(path).stat().st_size, MOST)

    def stored(place):
        nonlocal left
        _, dtype, key, _, count, *_ = place
        if not isinstance(key, str):  # taking the hash of nested tuples never ends, or ends the kernel
            raise ValueError("it names its weights by something that is not text")
        if key not in storages:
            left -= count * dtype.itemsize
            if count < 0 or left < 0:
                raise ValueError("it promises more weights than the file holds, or more than 4 GB")
            storages[key] = torch.zeros(count, dtype=dtype)
        return storages[key]

    with open(path, "rb") as file:
        if Path(path).suffix == ".safetensors" or file.read(9)[8:] == b"{":
            return _read_safetensors(file)
        file.seek(0)
        start = file.read(4)
        if start == b"\x89HDF":
            raise ValueError("it is an HDF5 file, as of Keras; convert it, and save a state_dict by torch.save")
        if start != b"PK\x03\x04":
            file.seek(0)
            stream = io.BytesIO(file.read(LONGEST))
            *_, content, keys = (Decoder(stream, known, stored).load() for _ in range(5))
            file.seek(stream.tell())
            for storage in [storages[key] for key in keys if isinstance(key, str)]:
                file.read(8)  # the count, which the pickle holds too
                _fill(storage, file)
            return content
        with zipfile.ZipFile(file) as archive:
            if any(each.compress_type for each in archive.infolist()):
                raise ValueError("it is compressed")  # 1 MB could unfold to 1 GB
            folder = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
            content = Decoder(io.BytesIO(archive.open(f"{folder}data.pkl").read(LONGEST)), known, stored).load()
            for key, storage in storages.items():
                _fill(storage, archive.open(f"{folder}data/{key}"))
    return content


def _read_safetensors(file):
    # The length of a header in 8 bytes, the header in json, and then the numbers. LONGEST bounds the tensors' number.
    file.seek(0)
    length, left = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size - 8
    if length > min(left, LONGEST):
        raise ValueError(f"its header of {length} bytes has no place in the file, or has more than {LONGEST} bytes")
    try:
        header, found, size = json.loads(file.read(length), object_pairs_hook=_once), {}, left - length
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"its header is not json: {error}") from error
    if not isinstance(header, dict):
        raise ValueError(f"its header is a {type(header).__name__} and not a dict")
    left = min(size, MOST)
    for name, place in header.items():
        if name != "__metadata__":
            dtype, shape, begin, end = _place(name, place)
            if end > size:
                raise ValueError(f"{name!r:.80} lies outside the file, which holds {size} bytes of weights")
            left -= end - begin
            if left < 0:  # parts that overlap could take any memory
                raise ValueError("it promises more weights than the file holds, or more than 4 GB")
            file.seek(8 + length + begin)
            found[name] = torch.zeros(shape, dtype=dtype)
            _fill(found[name].view(-1), file)
    return found


def _once(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header has a name twice")
    return found


def _place(name, place):  # the type, the shape, and the first and the last byte of a tensor
    place = place if isinstance(place, dict) else {}
    dtype, shape, offsets = (place.get(each) for each in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in SAFE:
        raise ValueError(f"{name!r:.80} is of the type {dtype!r:.20} and not of one of {', '.join(SAFE)}")
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [-1]
    if not all(type(each) is int and 0 <= each < 2**63 for each in numbers) or len(offsets) != 2 or len(shape) > 8:
        raise ValueError(
            f"{name!r:.80} has the shape {shape!r:.40} and the offsets {offsets!r:.40}, which fit no tensor"
        )
    begin, end = offsets
    if end - begin != math.prod(shape) * SAFE[dtype].itemsize:
        raise ValueError(f"{name!r:.80} has {end - begin} bytes, which do not fit its shape {shape!r:.40}")
    return SAFE[dtype], shape, begin, end


def _fill(storage, file):
    content = np.frombuffer(file.read(storage.nbytes), np.uint8)
    if len(content) < storage.nbytes:
        raise ValueError("it is cut off")
    storage.view(torch.uint8).numpy()[:] = content


def made_network(make: Callable, path: str | Path | None, advice: str, *, seed: int = 0) -> nn.Module:
    """Make a network with loaded or random weights, frozen and in eval mode.

    Parameters
    ----------
    make : function that returns the network
    path : str, Path or None
        A file with a state dict, or with a checkpoint that has one, also of a network in DataParallel or alike; None:
        the random weights that the function gives.
    advice : str
        The end of the one line of FileNotFoundError, or of ValueError where a layer lacks finite weights of its shape.
    seed : int
        Of the random weights; PyTorch's global generator keeps its state.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
    if path is not None:
        _load(network, path, advice)
    return network.requires_grad_(False).eval()


def _load(network, path, advice):
    if not is_file(path):
        raise FileNotFoundError(f"no weights file {printable(path)}; {advice}")
    try:
        content, wanted = read_weights(path), network.state_dict()
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__} and not a dict")
        found = [each for each in (content, *content.values()) if isinstance(each, dict)]
        found = [{WRAPPED.sub("", str(name)): value for name, value in each.items()} for each in found]
        state = max(found, key=lambda each: len(each.keys() & wanted.keys()))
        for name in [name for name in state if name not in wanted]:
            raise ValueError(f"it has {name!r:.80}, which the network lacks")
        for name, weights in wanted.items():
            if not name.endswith("num_batches_tracked"):  # which counts nothing here, and old files lack
                _check_weights(name, state.get(name), weights)
        network.load_state_dict(state)
        check_network(network)
    except Exception as error:  # a damaged file raises nearly anything
        raise ValueError(
            f"{printable(path)} holds no weights (a saved state_dict) that fit the network: "
            f"{reason_of(error)}; {advice}"
        ) from error


def reason_of(error: Exception) -> str:
    """Return what an error says, in one line of at most 300 characters."""
    said = str(error) if isinstance(error, ValueError) else f"it is damaged or of another kind, {error!r}"
    return said.split("\n")[0][:300]


def _check_weights(name, given, wanted):
    if not isinstance(given, torch.Tensor):
        raise ValueError(f"{name} is missing")
    if given.shape != wanted.shape:
        raise ValueError(f"{name} has the shape {list(given.shape)} and not {list(wanted.shape)}")
    if not given.is_floating_point():
        raise ValueError(f"{name} is of {given.dtype} and not of floating point numbers")
