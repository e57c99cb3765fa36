#!/usr/bin/env python3
"""What documents and help texts name exists: relative links of the Markdown files, `make` targets, `braid`
sub-commands with their options, and folders under configs/. Exits 1 and names what does not.

Looked at are the code of Markdown files (in backticks or fenced) and the string literals of apps/**.cc, which hold the
help texts. Names of commands and options are those that apps/**.cc adds.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)
MAKE = re.compile(r"`make ([a-z]+)")
CONFIG = re.compile(r"\bconfigs/([\w.-]*\w)")
COMMAND = re.compile(r"(?:^|[\s`/(])braid ([a-z]+)(?: ([a-z]+)\b(?![=/.]))?")
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
ADDED = re.compile(r'(\w+)\s*(?:\.|->)\s*add_subcommand\(\s*"(\w+)"')
# Options of generate.cc that are spelled as the JSON keys they set.
FIELD = re.compile(r'\b(?:integer|number)\("(\w+)"|\badd_field<[^;]*?options, "(\w+)"')
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def sources():
    return {path.relative_to(ROOT): path.read_text() for path in sorted((ROOT / "apps").rglob("*.cc"))}


def known_commands(texts):
    """{"generate": set(), "bench": {"decode"}, ...}: sub-commands, and theirs."""
    commands = {}
    for text in texts:
        top = [name for parent, name in ADDED.findall(text) if parent == "program"]
        for name in top:
            commands[name] = set()
        for parent, name in ADDED.findall(text):
            if parent != "program":
                commands.setdefault(parent, set()).add(name)
    return commands


def known_options(texts):
    """Every option that some command has."""
    options = {"--help", "--version"}
    for text in texts:
        options.update(re.findall(r'"(--[a-z][a-z-]*)"', text))
        for keys in FIELD.findall(text):
            options.update("--" + key.replace("_", "-") for key in keys if key)
    return options


def help_texts(source):
    """The string literals of a source, adjacent ones joined, as they are printed."""
    joined = re.sub(r'"\s*\n\s*"', "", source)
    for literal in LITERAL.findall(joined):
        yield from literal.replace('\\"', '"').replace("\\n", "\n").splitlines()


def code_lines(markdown):
    for block in FENCE.findall(markdown):
        yield from block.splitlines()
    for span in SPAN.findall(FENCE.sub("", markdown)):
        yield span


def check_code(line, commands, options):
    """What a line of code names and is not there."""
    for config in CONFIG.findall(line):
        if not (ROOT / "configs" / config).exists():
            yield f"names configs/{config}, which is not there"
    for name, sub in COMMAND.findall(line):
        if name not in commands:
            yield f"names `braid {name}`, which is no sub-command"
        elif commands[name] and sub and sub not in commands[name]:
            yield f"names `braid {name} {sub}`, which is no sub-command"
    if COMMAND.search(line):
        for option in OPTION.findall(line.split(" #")[0].split(" | ")[0]):
            if option not in options:
                yield f"names {option}, an option that no sub-command has"


def check_markdown(name, text, targets):
    """Links and make targets; returns the number of links and what is wrong."""
    problems = []
    links = [link for link in LINK.findall(text) if "://" not in link and not link.startswith(("#", "mailto:"))]
    for link in links:
        if not (ROOT / name).parent.joinpath(link.split("#")[0]).exists():
            problems.append(f"{name}: link to {link}, which is not there")
    for target in MAKE.findall(text):
        if target not in targets:
            problems.append(f"{name}: names `make {target}`, which the Makefile does not have")
    return len(links), problems


def main():
    files = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    apps = sources()
    commands, options = known_commands(apps.values()), known_options(apps.values())
    if not commands:
        sys.exit("check_links: apps/*.cc adds no sub-command that this script understands")
    problems = []
    num_links = num_commands = 0
    for name in files:
        text = (ROOT / name).read_text()
        links, wrong = check_markdown(name, text, targets)
        num_links += links
        problems += wrong
        for line in code_lines(text):
            num_commands += len(COMMAND.findall(line))
            problems += [f"{name}: {problem}" for problem in check_code(line, commands, options)]
    for name, text in apps.items():
        for line in help_texts(text):
            num_commands += len(COMMAND.findall(line))
            problems += [f"{name}: {problem}" for problem in check_code(line, commands, options)]
    if problems:
        sys.exit("\n".join(problems))
    print(f"links: {num_links} links of {len(files)} documents lead somewhere, {num_commands} uses of braid name a command")


if __name__ == "__main__":
    main()
