"""What a compiler sees of a C++ source: without comments and layout."""

import re

# In this order: a comment, a raw string, a string, a character (not the ' of 1'000), any other text.
_TOKENS = re.compile(
    r"""(?P<comment>//(?:\\\n|[^\n])*|/\*.*?\*/)"""
    r"""|(?P<raw>R"(?P<end>[^()\\\s]{0,16})\(.*?\)(?P=end)")"""
    r"""|(?P<string>"(?:\\.|[^"\\])*")"""
    r"""|(?P<character>(?<![0-9a-fA-F])'(?:\\.|[^'\\])*')"""
    r"""|(?P<directive>^[ \t]*\#(?:\\\n|[^\n/]|/(?![/*]))*)"""
    r"""|(?P<space>\s+)"""
    r"""|(?P<other>.)""", re.DOTALL | re.MULTILINE)


def essence(source):
    r"""The source without comments and without white space between tokens; pieces of one string put
    together. Equal for two sources that a formatter or a better comment tell apart.

    >>> essence('int a;  // one\nint /* two */ b = 1;') == essence('int a;\n  int b = 1;')
    True
    >>> essence('f("a // no comment", 1);')
    'f("a // no comment",1);'
    >>> essence('s = "long "\n    "text";') == essence('s = "long text";')
    True
    >>> essence('int a;') == essence('inta;')
    False
    >>> essence("x = 1'000; // '\ny = '\"';") == essence("x = 1'000;\ny = '\"';")
    True
    >>> essence('R"(a  // b)"')
    'R"(a  // b)"'
    >>> essence('#define A 1\nint b;') == essence('#define A 1 int b;')
    False
    >>> essence('a = b + + c;') == essence('a = b ++ c;')
    False
    """
    out = []
    last = None  # kind of the last token
    spaced = False
    for token in _TOKENS.finditer(source):
        kind, text = token.lastgroup if token.lastgroup != "end" else "raw", token.group()
        if kind in ("comment", "space"):
            spaced = True
            continue
        if kind == "string" and last == "string":
            out[-1] = out[-1][:-1] + text[1:]
            spaced = False
            continue
        if kind == "directive":
            text = "\n" + " ".join(text.replace("\\\n", " ").split()) + "\n"
        elif spaced and out and kind == "other" and last == "other":
            before = out[-1][-1]
            # White space that keeps two tokens apart counts, any other does not.
            if (before.isalnum() or before == "_") and (text.isalnum() or text == "_") or (
                    before == text and before in "+-&|<>=:"):
                out.append(" ")
        out.append(text)
        last, spaced = kind, False
    return "".join(out)
