"""Reads the key-value header of a GGUF file (version 2 or 3), nothing of its tensors.

Source: the GGUF specification in the ggml project. Only what the tokenizer goldens need.
"""

import struct

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
            10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


def read_metadata(path):
    """Returns {key: value}; arrays become lists. Raises ValueError when path is no GGUF file."""
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} does not start with the GGUF magic")
        version, _, num_keys = struct.unpack("<IQQ", file.read(20))
        if version not in (2, 3):
            raise ValueError(f"{path} has GGUF version {version}, need 2 or 3")

        def string():
            (size,) = struct.unpack("<Q", file.read(8))
            return file.read(size).decode("utf-8")

        def value(kind):
            if kind == _STRING:
                return string()
            if kind == _ARRAY:
                element, count = struct.unpack("<IQ", file.read(12))
                return [value(element) for _ in range(count)]
            form = _SCALARS[kind]
            return struct.unpack(form, file.read(struct.calcsize(form)))[0]

        metadata = {}
        for _ in range(num_keys):
            key = string()
            (kind,) = struct.unpack("<I", file.read(4))
            metadata[key] = value(kind)
        return metadata
