"""Files of networks are data: damaged, hostile and foreign ones give one line that names the file and the reason."""

import json
import os
import pickle
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


def test_random_damage_gives_the_content_or_one_error():
    """In a process of its own, which a fault of a library could end."""
    command = [sys.executable, ROOT / "tests/damage.py", "130"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    report = json.loads(done.stdout)
    assert report["faults"] == {} and sum(report["outcomes"].values()) == 130
    assert min(report["outcomes"][kind] for kind in ("content", "error")) > 20  # otherwise little is tested
    assert report["gigabytes"] < 0.5


DEEP = b"(" * 0 + b")" + 10**6 * b"\x85"  # a tuple in a tuple in a tuple ...
PAIRS = b")" + b"".join(b"\x94h" + bytes([number]) + b"\x86" for number in range(60))  # each holds the last one twice
LONG = b"\x8b" + struct.pack("<I", 10**6) + b"\x01" * 10**6  # a number of 2 million digits
HOSTILE = {
    "deep keys": (b"\x80\x04}" + DEEP + b"K\x01s.", "."),
    "keys of pairs": (b"\x80\x04}" + PAIRS + b"K\x01s.", "keys that are no text"),
    "pairs": (b"\x80\x04" + PAIRS + b".", "."),
    "a high memo": (b"\x80\x04}r" + struct.pack("<I", 2**28) + b".", "."),
    "numbers as keys": (b"\x80\x04}K\x01K\x01s.", "."),
    "a long number": (b"\x80\x04}\x8c\x0akernelsize" + LONG + b"s.", "."),
    "a list in itself": (b"\x80\x04]\x94h\x00a.", "."),
    "many operations": (b"\x80\x04" + b"N0" * 10**6 + b".", "."),
    "a function": (b"\x80\x04cbuiltins\neval\n\x8c\x011\x85R.", "it asks for builtins.eval"),
    "an array of zeros": (b"\x80\x04cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x04\x85R.", "it asks for builtins.bytearray"),
    "nothing to take": (b"\x80\x04\x87.", "it ends in the middle"),
    "no end": (b"\x80\x04}", "exhausted"),
}
CHILD = """
import resource, sys, time
from support import networks
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
path, parameters = sys.argv[1], eval(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    networks.build_network(parameters, model_path=path) if path.endswith("pth") else networks.load_parameters(path)
except ValueError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000)
"""
