"""Reads a GGUF file: its key-value header, and its tensors as float32 arrays.

Only what the demo model needs: little-endian files of version 2 or 3 and the tensor types F32, F16, Q8_0 and Q4_1.
Source: the GGUF specification (docs/gguf.md of ggml); block layouts from ggml-common.h.
"""

import mmap
import struct
from dataclasses import dataclass

import numpy as np

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
# ggml type -> (elements per block, bytes per block)
_BLOCKS = {0: (1, 4), 1: (1, 2), 3: (32, 20), 8: (32, 34)}
_F32, _F16, _Q4_1, _Q8_0 = 0, 1, 3, 8


class GgufError(ValueError):
    """The file is not a GGUF file this reader understands."""


@dataclass(frozen=True)
class TensorInfo:
    """Shape is row-major ([out, in] for a linear weight), offset counts from the start of the file."""

    shape: tuple
    ggml_type: int
    offset: int


class GgufFile:
    """An open GGUF file. `fields` maps keys to Python values, `tensors` names to TensorInfo."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            self._data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        self._pos = 0
        if self._data[:4] != b"GGUF":
            raise GgufError(f"{path} does not start with GGUF")
        self._pos = 4
        version = self._scalar("<I")
        if version not in (2, 3):
            raise GgufError(f"{path} is GGUF version {version}, expected 2 or 3")
        num_tensors, num_fields = self._scalar("<Q"), self._scalar("<Q")
        self.fields = {}
        for _ in range(num_fields):
            key = self._string()
            self.fields[key] = self._value(self._scalar("<I"))
        infos = []
        for _ in range(num_tensors):
            name = self._string()
            dims = [self._scalar("<Q") for _ in range(self._scalar("<I"))]
            infos.append((name, tuple(reversed(dims)), self._scalar("<I"), self._scalar("<Q")))
        align = self.fields.get("general.alignment", 32)
        base = (self._pos + align - 1) // align * align
        self.tensors = {name: TensorInfo(shape, kind, base + at) for name, shape, kind, at in infos}

    def tensor(self, name):
        """The named tensor as a float32 array in row-major shape."""
        info = self.tensors[name]
        if info.ggml_type not in _BLOCKS:
            raise GgufError(f"{self.path}: tensor {name} has ggml type {info.ggml_type}, expected F32, F16, Q4_1 or Q8_0")
        per_block, block_bytes = _BLOCKS[info.ggml_type]
        count = int(np.prod(info.shape, dtype=np.int64))
        if info.shape[-1] % per_block:
            raise GgufError(f"{self.path}: tensor {name} has rows of {info.shape[-1]}, not a multiple of {per_block}")
        num_bytes = count // per_block * block_bytes
        raw = np.frombuffer(self._data, np.uint8, num_bytes, info.offset)
        return _dequantise(raw, info.ggml_type).reshape(info.shape)

    def _scalar(self, fmt):
        (value,) = struct.unpack_from(fmt, self._data, self._pos)
        self._pos += struct.calcsize(fmt)
        return value

    def _string(self):
        size = self._scalar("<Q")
        raw = self._data[self._pos : self._pos + size]
        self._pos += size
        return raw.decode("utf-8")

    def _value(self, kind):
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            inner, count = self._scalar("<I"), self._scalar("<Q")
            return [self._value(inner) for _ in range(count)]
        raise GgufError(f"{self.path}: unknown value type {kind}")


def _dequantise(raw, ggml_type):
    """Bytes of whole blocks -> flat float32."""
    if ggml_type == _F32:
        return raw.view("<f4").astype(np.float32)
    if ggml_type == _F16:
        return raw.view("<f2").astype(np.float32)
    if ggml_type == _Q8_0:  # f16 scale, 32 int8
        blocks = raw.reshape(-1, 34)
        scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
        return (scale * blocks[:, 2:].view(np.int8).astype(np.float32)).reshape(-1)
    # Q4_1: f16 scale, f16 minimum, 16 bytes; low nibbles are elements 0..15, high nibbles 16..31.
    blocks = raw.reshape(-1, 20)
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    low = np.ascontiguousarray(blocks[:, 2:4]).view("<f2").astype(np.float32)
    nibbles = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    return (scale * nibbles.astype(np.float32) + low).reshape(-1)
