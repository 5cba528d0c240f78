"""Files of networks are data: damaged, hostile and foreign ones give one line that names the file and the reason."""

import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import audiocnn
from support import networks
from support.weights import read_weights

ROOT = Path(__file__).parents[2]


def report_of(*arguments):
    """What tests/damage.py reports."""
    command = [sys.executable, ROOT / "tests/damage.py", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_random_damage_gives_the_content_or_one_error():
    """Sounds and networks; 2,600 damages were tried by hand."""
    report = report_of(130)
    outcomes = list(report["outcomes"].values())
    assert len(outcomes) == 130 and [each for each in outcomes if each.startswith("fault")] == []
    assert 20 < outcomes.count("content") < 110  # otherwise little is tested
    assert report["gigabytes"] < 0.5


DEEP = b")" + 10**6 * b"\x85"  # a tuple in a tuple in a tuple ...
PAIRS = b")" + b"".join(b"\x94h" + bytes([number]) + b"\x86" for number in range(60))  # each holds the last one twice
LONG = b"\x8b" + struct.pack("<I", 10**6) + b"\x01" * 10**6  # a number of 2.4 million digits
HOSTILE = {  # what comes behind the protocol, and the reason
    "deep": (DEEP + b".", "only a flat dict|is a tuple"),
    "deep-keys": (b"}" + DEEP[: 2 * 10**5] + b"K\x01s.", "keys that are not text"),
    "pairs": (PAIRS + b".", "only a flat dict|is a tuple"),
    "pairs-as-keys": (b"}" + PAIRS + b"K\x01s.", "keys that are not text"),
    "memo": (b"}r" + struct.pack("<I", 2**31 - 1) + b".", "parameters lack l1channels|is missing"),
    "numbers-as-keys": (b"}K\x01K\x01s.", "only a flat dict|which the network lacks"),
    "long-number": (b"}\x8c\x0akernelsize" + LONG + b"s.", "parameters lack|which the network lacks"),
    "long-key": (b"}" + LONG + b"K\x01s.", "keys that are not text"),
    "circle": (b"]\x94h\x00a.", "only a flat dict|is a list"),
    "operations": (b"N0" * 10**6 + b".", "IndexError"),
    "code": (b"cbuiltins\neval\n\x8c\x011\x85R.", "asks for builtins.eval"),
    "zeros": (b"cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x04\x85R.", "asks for builtins.bytearray"),
    "too-few": (b"\x87.", "IndexError"),
    "no-end": (b"}", "EOFError"),
}


def stored(key):
    """The place of one weight in a storage, as a pickle says it: the key comes third."""
    return b"(\x8c\x07storagectorch\nFloatStorage\n" + key + b"\x8c\x03cpuK\x01tQ"


def view_of(storage, size):
    """A tensor of a storage, as a pickle makes it."""
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + size + b"K\x00\x85tR"


DEEP_KEY = DEEP[: 2 * 10**5]
ONE_WEIGHT = view_of(stored(b"\x8c\x010"), b"K\x01\x85")
HOSTILE |= {
    "deep-place": (stored(DEEP_KEY) + b".", "names its weights by something that is not text|asks for torch"),
    "pairs-as-place": (stored(PAIRS) + b".", "names its weights by something that is not text|asks for torch"),
    "deep-key-of-a-tensor": (ONE_WEIGHT + DEEP_KEY + b"K\x01s.", "that is not a dict|asks for torch"),
    "deep-keys-of-a-list": (b"](" + DEEP_KEY + b"K\x01" + DEEP_KEY + b"K\x02u.", "that is not a dict"),
    "half-a-pair": (b"}(K\x01u.", "is damaged or of another kind|argument"),
    "deep-size": (view_of(stored(b"\x8c\x010"), DEEP_KEY) + b".", "TypeError|asks for torch"),
    "large-view": (view_of(stored(b"\x8c\x010"), b"J\xff\xff\xff\x7f\x85") + b".", "more values than are|asks for"),
    "deep-key-of-a-reference": (b"(" + DEEP_KEY + b"Q.", "TypeError|not enough values"),
}


def test_hostile_pickles_end_within_seconds_and_little_memory(tmp_path):
    reasons = {}
    for name, (content, reason) in HOSTILE.items():
        pickled = b"\x80\x04" + content
        (tmp_path / f"{name}.pkl").write_bytes(pickled)
        (tmp_path / f"{name}-old.pth").write_bytes(b"\x80\x04N." * 3 + pickled + b"\x80\x04].")
        with zipfile.ZipFile(tmp_path / f"{name}.pth", "w") as archive:
            archive.writestr("net/data.pkl", pickled)
        reasons |= dict.fromkeys((f"{name}.pkl", f"{name}.pth", f"{name}-old.pth"), reason)
    report = report_of(*(tmp_path / name for name in reasons))
    for name, said in report["outcomes"].items():
        assert re.search(reasons[name], said) and not said.startswith("fault"), (name, said)
    assert report["gigabytes"] < 0.5


def weights_file(path, parameters, change, **options):
    """Write the weights of a random CNN, changed by a function of the state dict."""
    torch.save(change(audiocnn.CNN(parameters).state_dict()), path, **options)


def with_value(name, value):
    """Return a function that sets the first weight of a layer."""

    def change(state):
        state[name].view(-1)[0] = value
        return state

    return change


FAULTY = {
    "NaN": (with_value("layer1.0.weight", torch.nan), "layer1.0.weight holds NaN or infinite"),
    "infinite": (with_value("fc.bias", -torch.inf), "fc.bias holds NaN or infinite"),
    "large": (lambda s: s | {"fc.bias": torch.full((5,), 1e300, dtype=torch.float64)}, "fc.bias holds NaN or infinite"),
    "variance": (with_value("layer2.1.running_var", -1e-3), "layer2.1.running_var, a variance, holds values below 0"),
    "complex": (lambda s: s | {"fc.bias": torch.ones(5, dtype=torch.cfloat)}, "fc.bias is of torch.complex64"),
    "boolean": (lambda s: s | {"fc.bias": torch.ones(5) > 0}, "fc.bias is of torch.bool"),
    "8 bits": (lambda s: s | {"fc.bias": torch.ones(5).to(torch.int8)}, "fc.bias is of torch.int8"),
    "a number": (lambda s: s | {"fc.bias": 1.0}, "fc.bias is missing"),
    "a part": (lambda s: {"layer1.0.weight": s["layer1.0.weight"]}, "layer1.0.bias is missing"),
    "more": (lambda s: s | {"head.weight": s["fc.weight"]}, "'head.weight', which the network lacks"),
    "a list": (lambda s: [torch.ones(1)], "is a list and not a dict"),
    "a network": (lambda s: torch.nn.Linear(1, 1), "asks for torch.nn.modules.linear.Linear"),
}


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_that_do_not_fit_name_the_file_and_the_layer(name, zipped, tmp_path, parameters):
    change, reason = FAULTY[name]
    weights_file(tmp_path / "net.pth", parameters, change, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=rf"net.pth holds no weights .*{reason}.*; give one of models/ and the param"
    ) as error:
        networks.build_network(parameters, model_path=tmp_path / "net.pth")
    assert "\n" not in str(error.value)


PUBLISHED = {
    "DataParallel": lambda s: {f"module.{name}": value for name, value in s.items()},
    "torch.compile": lambda s: {f"_orig_mod.{name}": value for name, value in s.items()},
    "Lightning": lambda s: {"state_dict": {f"model.{name}": value for name, value in s.items()}},
    "both": lambda s: {"model": {f"module._orig_mod.{name}": value for name, value in s.items()}},
    "a checkpoint": lambda s: {
        "epoch": 3,
        "lr": 0.1,
        "state_dict": s,
        "optimizer": {"state": {0: {"step": 3}}, "p": [0]},
    },
    "half precision": lambda s: {name: value.half() for name, value in s.items()},
    "double precision": lambda s: {name: value.double() for name, value in s.items()},
    "without counts": lambda s: {name: value for name, value in s.items() if "num_batches" not in name},
    "parameters": lambda s: {n: torch.nn.Parameter(v) if v.is_floating_point() else v for n, v in s.items()},
    "inside model": lambda s: {"model": s, "epoch": 3},
    "DataParallel inside model": lambda s: {"model": {f"module.{name}": value for name, value in s.items()}},
    "parts of one tensor": lambda s: s | {"fc.bias": torch.arange(20.0)[3:18:3]},
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("options", [{}, dict(_use_new_zipfile_serialization=False), dict(pickle_protocol=4)])
def test_published_weights_load_as_torch_loads_them(name, options, tmp_path, parameters):
    weights_file(tmp_path / "net.pth", parameters, PUBLISHED[name], **options)
    loaded = networks.build_network(parameters, model_path=tmp_path / "net.pth").state_dict()
    given = torch.load(tmp_path / "net.pth", weights_only=False)
    given = given.get("state_dict", given.get("model", given))
    for key, value in given.items():
        (own,) = [loaded[name] for name in loaded if key == name or key.endswith(f".{name}")]
        torch.testing.assert_close(own, value.to(own))


NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


def layout_of(state):
    """Return the header of a safetensors file for a state dict, and the bytes of the numbers."""
    header, numbers = {"__metadata__": {"format": "pt"}}, b""
    for name, value in state.items():
        content = bytes(value.contiguous().reshape(-1).view(torch.uint8).tolist())  # little-endian, as the format asks
        place = [len(numbers), len(numbers) + len(content)]
        header[name] = {"dtype": NAMES[value.dtype], "shape": list(value.shape), "data_offsets": place}
        numbers += content
    return header, numbers


def safetensors_file(path, header, numbers):
    """Write the bytes of a safetensors file, as its format says; a header may be text."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + numbers)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_safetensors_load_as_a_state_dict_does(name, dtype, tmp_path, parameters):
    state = audiocnn.CNN(parameters).state_dict()
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    safetensors_file(tmp_path / name, *layout_of({f"module.{key}": value for key, value in state.items()}))
    loaded = networks.build_network(parameters, model_path=tmp_path / name).state_dict()
    for key, value in state.items():
        torch.testing.assert_close(loaded[key], value.to(loaded[key].dtype), rtol=0, atol=0)


def test_safetensors_of_known_bytes(tmp_path):
    """1, -2 and 0.5 in 16 bits, written by hand: the upper halves of their 32 bits, and IEEE 754's half precision."""
    places = {"a": ("BF16", [3], [0, 6]), "b": ("F16", [3, 1], [6, 12]), "c": ("I8", [], [12, 13])}
    header = {key: dict(zip(("dtype", "shape", "data_offsets"), place, strict=True)) for key, place in places.items()}
    safetensors_file(tmp_path / "known", json.dumps(header) + "   ", bytes.fromhex("803f00c0003f 003c00c00038 fb"))
    read = read_weights(tmp_path / "known")
    assert {key: value.tolist() for key, value in read.items()} == {"a": [1, -2, 0.5], "b": [[1], [-2], [0.5]], "c": -5}


def with_place(**change):
    """Return a function that changes what the header says of fc.bias, five numbers of 4 bytes."""
    return lambda header, numbers: (header | {"fc.bias": header["fc.bias"] | change}, numbers)


DAMAGED = {
    "cut off": (lambda header, numbers: (header, numbers[:-1]), "lies outside the file"),
    "no header": (lambda header, numbers: ("", b""), "its header is not json: Expecting value"),
    "no json": (lambda header, numbers: ("{'a'", numbers), "its header is not json"),
    "a list": (lambda header, numbers: ("[1]", numbers), "header is a list and not a dict"),
    "deep": (lambda header, numbers: ("[" * 10**6, b""), "RecursionError"),
    "twice": (lambda header, numbers: ('{"a": 1, "a": 2}', b""), "has a name twice"),
    "long": (lambda header, numbers: (" " * (2**22 + 1), b""), "header of 4194305 bytes"),
    "no place": (lambda header, numbers: (header | {"fc.bias": 3}, numbers), "'fc.bias' is of the type None"),
    "type": (with_place(dtype="F4"), "'fc.bias' is of the type 'F4' and not of one of F64, F32, F16, BF16"),
    "type of a list": (with_place(dtype=["F32"]), r"'fc.bias' is of the type \['F32'\]"),
    "larger": (with_place(shape=[6]), r"'fc.bias' has 20 bytes, which do not fit its shape \[6\]"),
    "negative": (with_place(shape=[-5]), r"'fc.bias' has the shape \[-5\]"),
    "huge": (with_place(shape=[2**62, 2**62]), "'fc.bias' has 20 bytes, which"),
    "digits": (with_place(shape=[10**4000]), "'fc.bias' has the shape .1000"),
    "dimensions": (with_place(shape=[1] * 8 + [5]), "'fc.bias' has the shape"),
    "fractions": (with_place(shape=[5.0]), r"'fc.bias' has the shape \[5.0\]"),
    "one offset": (with_place(data_offsets=[0]), r"offsets \[0\], which fit no tensor"),
    "offsets of text": (with_place(data_offsets="0:20"), "offsets '0:20'"),
    "backwards": (with_place(data_offsets=[20, 0]), "'fc.bias' has -20 bytes"),
    "far away": (with_place(data_offsets=[2**40, 2**40 + 20]), "'fc.bias' lies outside the file"),
    "overlapping": (
        lambda header, numbers: (header | {str(n): header["layer3.0.weight"] for n in range(500)}, numbers),
        "promises more weights than the file holds",
    ),
    "another shape": (with_place(shape=[5, 1]), r"fc.bias has the shape \[5, 1\] and not \[5\]"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_safetensors_name_the_file_and_the_reason(name, tmp_path, parameters):
    change, reason = DAMAGED[name]
    safetensors_file(tmp_path / "net.safetensors", *change(*layout_of(audiocnn.CNN(parameters).state_dict())))
    with pytest.raises(ValueError, match=rf"net.safetensors holds no weights .*{reason}.*; give one of mod") as error:
        networks.build_network(parameters, model_path=tmp_path / "net.safetensors")
    assert "\n" not in str(error.value)


def test_a_safetensors_file_of_any_length_that_is_cut_off(tmp_path, parameters):
    safetensors_file(tmp_path / "net.safetensors", *layout_of(audiocnn.CNN(parameters).state_dict()))
    whole = (tmp_path / "net.safetensors").read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(whole), len(whole) // 50)]:
        (tmp_path / "net.safetensors").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"net.safetensors holds no weights"):
            networks.build_network(parameters, model_path=tmp_path / "net.safetensors")


@pytest.mark.parametrize("path", sorted(ROOT.glob("models/*.pth")), ids=lambda path: path.stem)
def test_the_project_s_weights_are_read_as_torch_reads_them(path):
    read, expected = read_weights(path), torch.load(path, weights_only=True)
    assert list(read) == list(expected)
    assert all(torch.equal(read[name], expected[name]) and read[name].dtype == expected[name].dtype for name in read)


def test_a_file_of_keras_is_to_be_converted(tmp_path, parameters):
    (tmp_path / "net.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500))
    with pytest.raises(ValueError, match=r"net.h5 holds no weights .*it is an HDF5 file, .*; convert it"):
        networks.build_network(parameters, model_path=tmp_path / "net.h5")


def test_zip_bombs_are_refused(tmp_path, parameters):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\x80\x02X" + struct.pack("<I", 10**8) + b"a" * 10**8 + b".")
    with pytest.raises(ValueError, match=r"bomb.pth holds no weights .*it is compressed"):
        networks.build_network(parameters, model_path=tmp_path / "bomb.pth")


def test_promises_of_more_weights_than_the_file_holds(tmp_path, parameters):
    """The count of a storage is changed to 2**40 numbers of 4 bytes."""
    weights_file(
        tmp_path / "net.pth", parameters, lambda s: {"fc.bias": torch.ones(77)}, _use_new_zipfile_serialization=False
    )
    content = (tmp_path / "net.pth").read_bytes()
    assert content.count(b"cpu") == 1
    start = content.index(b"K\x4d", content.index(b"cpu"))
    (tmp_path / "net.pth").write_bytes(content[:start] + b"\x8a\x06\0\0\0\0\0\x01" + content[start + 2 :])
    with pytest.raises(ValueError, match=r"net.pth holds no weights .*promises more weights than the file holds"):
        networks.build_network(parameters, model_path=tmp_path / "net.pth")


def test_more_than_4_gb_of_weights_are_not_read(tmp_path, parameters):
    """A file of 32 GB with holes takes no place on a disk, and would end the kernel of most machines."""
    header = json.dumps({"fc.bias": dict(dtype="F32", shape=[2**33], data_offsets=[0, 2**35])}).encode()
    holes = dict(safe=struct.pack("<Q", len(header)) + header, old=b"")
    weights_file(
        tmp_path / "one.pth", parameters, lambda s: {"b": torch.ones(77)}, _use_new_zipfile_serialization=False
    )
    old = (tmp_path / "one.pth").read_bytes()
    start = old.index(b"K\x4d", old.index(b"cpu"))
    holes["old"] = old[:start] + b"\x8a\x05\0\0\0\0\x02" + old[start + 2 :]  # 2**33 numbers of 4 bytes
    for name, content in holes.items():
        with open(tmp_path / f"{name}.pth", "wb") as file:
            file.write(content)
            file.truncate(2**35 + len(content))
    report = report_of(*(tmp_path / f"{name}.pth" for name in holes))
    assert all("weights than the file holds, or more than 4 GB" in said for said in report["outcomes"].values()), report
    assert report["gigabytes"] < 0.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"l1channels": 10**9}, "more than 10..9 weights .4 GB.; lower the largest"),
        ({"kernelsize": 10**30}, "more than 10..9 weights"),
        ({"n_classes": True}, "n_classes=True must be a positive whole number"),
        ({"in_width": float("nan")}, "in_width=nan must be a positive whole number"),
    ],
)
def test_errors_of_parameters_name_the_file(change, reason, tmp_path, parameters):
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(parameters | change))
    with pytest.raises(ValueError, match=rf"net.pkl is not a parameter file: .*{reason}"):
        networks.load_parameters(tmp_path / "net")


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol(protocol, tmp_path, parameters):
    parameters |= {"note": "Gatys\u2019 \u00e9", "rate": 22050.5, "large": 2**70, "less": -3}
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(parameters, protocol))
    assert networks.load_parameters(tmp_path / "net") == parameters
