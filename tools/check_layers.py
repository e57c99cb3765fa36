#!/usr/bin/env python3
"""Compares every #include "folder/file" of the sources with tools/layers.txt.

A folder may include itself, the folders its line names, and nothing else of ours. Exits 1 and names
file, line and include where one does not fit; a folder without a line is an error too.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def read_layers(path):
    layers = {}
    for line in path.read_text().splitlines():
        line = line.split("#", 1)[0].strip()
        if line:
            folder, allowed = line.split(":", 1)
            layers[folder.strip()] = {folder.strip(), *allowed.split()}
    for folder, allowed in layers.items():
        unknown = allowed - layers.keys()
        if unknown:
            sys.exit(f"{path.name}: {folder} names unknown folders {sorted(unknown)}")
    return layers


def sources():
    """(folder as layers.txt names it, file)"""
    for top, folder_of in (
        ("src", lambda parts: parts[1]),
        ("include", lambda parts: "public"),
        ("apps", lambda parts: "apps"),
    ):
        for file in sorted((ROOT / top).rglob("*")):
            if file.suffix in (".h", ".cc", ".cuh", ".cu"):
                yield folder_of(file.relative_to(ROOT).parts), file


def main():
    layers = read_layers(ROOT / "tools" / "layers.txt")
    problems = 0
    count = 0
    for folder, file in sources():
        count += 1
        if folder not in layers:
            sys.exit(f"{file.relative_to(ROOT)}: folder {folder} has no line in tools/layers.txt")
        for number, line in enumerate(file.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            included = match.group(1).split("/")[0]
            included = "public" if included == "braid" else included
            if included not in layers[folder]:
                problems += 1
                print(
                    f"{file.relative_to(ROOT)}:{number}: {folder} may not include "
                    f'"{match.group(1)}" (allowed: {", ".join(sorted(layers[folder]))})'
                )
    if problems:
        sys.exit(f"{problems} includes break the layers of tools/layers.txt")
    print(f"layers: {count} files keep to tools/layers.txt")


if __name__ == "__main__":
    main()
