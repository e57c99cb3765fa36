"""Writes safetensors files of BF16 tensors with numpy alone.

Source: the format description in the README of huggingface/safetensors.
"""

import json
import struct

import numpy as np


def to_bf16(array):
    """float32 -> the bits of the nearest BF16 value (ties to even) as uint16, same shape. Values must be finite."""
    if not np.isfinite(array).all():
        raise ValueError("a tensor to be stored holds NaN or infinity")
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    """The bits of BF16 values as uint16 -> float32, same shape."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def write_bf16(path, shapes, make, on_tensor=None):
    """Writes one file, tensor by tensor, so that only one is in memory at a time.

    shapes: name -> shape, in the order of the file. make(name) -> float32 array of that shape.
    on_tensor(name) is called after each tensor is written.
    """
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)))
        f.write(text)
        for name, shape in shapes.items():
            array = make(name)
            if array.shape != tuple(shape):
                raise ValueError(f"{name} has shape {array.shape}, expected {tuple(shape)}")
            f.write(to_bf16(array).tobytes())
            if on_tensor:
                on_tensor(name)
