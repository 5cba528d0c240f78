"""Convert musicnn's VGG to PyTorch: python models/convert_musicnn.py FOLDER, FOLDER being MTT_vgg of the package.

To get the folder: pip download --no-deps musicnn==0.1.0, then unzip the wheel; it lies in musicnn/MTT_vgg.
Writes models/musicnn_vgg.pth, the weights of support.frontend.musicnn_layers, without the dense layer behind them.
Needs no TensorFlow. A checkpoint is two files: .index, a sorted table from a tensor's name to its place, and
.data-00000-of-00001, the bytes of all tensors one after the other.

Conventions
  kernels  TensorFlow (height, width, inputs, filters) = (frames, bands, inputs, filters);
           here (filters, inputs, bands, frames), because the width of this project's images is time

Sources
  tensorflow/core/lib/io/format.h and table_format.txt: blocks, footer, varints
  tensorflow/core/protobuf/tensor_bundle.proto: BundleEntryProto
  Pons, Serra 2019, musicnn: pre-trained convolutional neural networks for music audio tagging, arXiv:1909.06654
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from support import frontend  # noqa: E402

MAGIC = 0xDB4775248B80FB57  # the last eight bytes of every table
FLOAT32 = 1  # TensorFlow's number of this type
CONV = {"weight": "kernel", "bias": "bias"}
BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


# 1. The checkpoint -------------------------------------------------------------------------------


def read_checkpoint(folder):
    """Read the tensors of a checkpoint: dict from name to np.ndarray, float32 tensors only."""
    index, data = folder / ".index", folder / ".data-00000-of-00001"
    for path in (index, data):
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}; give the folder MTT_vgg of the package musicnn 0.1.0")
    data, tensors = data.read_bytes(), {}
    for name, entry in read_table(index):
        fields = dict(read_fields(entry))
        if name and fields.get(1) == FLOAT32:  # the entry without a name is about the whole checkpoint
            shape = [dict(read_fields(side)).get(1, 0) for number, side in read_fields(fields[2]) if number == 2]
            offset, size = fields.get(4, 0), fields[5]
            if size != 4 * math.prod(shape) or offset + size > len(data):
                raise ValueError(f"{index}: {name} of shape {shape} can't be {size} bytes at {offset}")
            tensors[name] = np.frombuffer(data, "<f4", math.prod(shape), offset).reshape(shape)
    return tensors


def read_table(path):
    """Yield the names [str] and entries [bytes] of a table."""
    table = path.read_bytes()
    if len(table) < 48 or int.from_bytes(table[-8:], "little") != MAGIC:
        raise ValueError(f"{path} is not an index of a TensorFlow checkpoint; give the folder MTT_vgg of musicnn 0.1.0")
    # The footer: where two blocks lie. The second lists the blocks of entries.
    _, place = read_varint(table, len(table) - 48)
    _, place = read_varint(table, place)
    for _, handle in read_block(path, table, *read_handle(table, place)):
        for name, entry in read_block(path, table, *read_handle(handle, 0)):
            yield name.decode(), entry


def read_handle(buffer, place):
    """Read where a block lies: (offset, size) in bytes."""
    offset, place = read_varint(buffer, place)
    return offset, read_varint(buffer, place)[0]


def read_block(path, table, offset, size):
    """Yield the keys and values [bytes] of a block. A key holds only what differs from the key before it."""
    block, compression = table[offset : offset + size], table[offset + size]
    if compression:
        raise ValueError(f"{path} is compressed, which this script can't read; save the checkpoint without")
    end = len(block) - 4 * (int.from_bytes(block[-4:], "little") + 1)  # places to start a search from, and their number
    key, place = b"", 0
    while place < end:
        shared, place = read_varint(block, place)
        fresh, place = read_varint(block, place)
        length, place = read_varint(block, place)
        key, place = key[:shared] + block[place : place + fresh], place + fresh
        yield key, block[place : place + length]
        place += length


def read_fields(message):
    """Yield the fields of a protocol buffer as (number, value): an int or bytes."""
    place = 0
    while place < len(message):
        tag, place = read_varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = read_varint(message, place)
        else:
            length, place = read_varint(message, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
            value, place = message[place : place + length], place + length
        yield number, value


def read_varint(buffer, place):
    """Read a whole number in groups of 7 bits, the lowest first: (number, place after it)."""
    number, shift = 0, 0
    while True:
        byte = buffer[place]
        number, shift, place = number | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return number, place


# 2. The network ----------------------------------------------------------------------------------


def convert(tensors):
    """Weights of frontend.musicnn_layers [a state dict] from the tensors of musicnn's checkpoint.

    TensorFlow numbers the batch norms in the order in which musicnn makes them: the input's is the first.
    """
    network = frontend.musicnn_layers()
    state = network.state_dict()
    for name in state:
        layer, part = name.split(".")
        if part == "num_batches_tracked":  # counts batches in training only
            continue
        kind, _, number = layer.partition("_")
        if kind == "conv":
            source = f"{number}CNN/{CONV[part]}"
        else:
            source = f"batch_normalization{'' if kind == 'input' else '_' + number}/{BATCH_NORM[part]}"
        if source not in tensors:
            raise ValueError(f"the checkpoint has no {source}, but {', '.join(tensors)}; give the folder MTT_vgg")
        value = tensors[source]
        value = value.transpose(3, 2, 1, 0) if value.ndim == 4 else value
        state[name] = torch.from_numpy(value.copy())
    network.load_state_dict(state)  # raises RuntimeError for other shapes
    return network.state_dict()


def main():
    """Convert the folder of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="MTT_vgg of the package musicnn 0.1.0")
    parser.add_argument("--into", type=Path, default=ROOT / "models/musicnn_vgg.pth", help="file to write")
    arguments = parser.parse_args()
    torch.save(convert(read_checkpoint(arguments.folder)), arguments.into)


if __name__ == "__main__":
    main()
