"""The rules of `.gitignore`: they are read, or named as too large; none matches what its plain text rules out."""

from __future__ import annotations

import re

from sandboxer.hosts.trees import gitignore

INPUTS = 800
PATHS = (
    "a",
    "a" * 60,
    "b/a",
    "a/b/c",
    "src/main.py",
    "a b",
    "-",
    "ü",
    "/".join("abcabcabc"),
    "[a]",
    "*",
    "build/x/y.log",
)
SEEDS = [
    b"*.log\n!keep.log\n/top\nb/c\n\\#h\nfoo/\n# no\n",
    b"**/a\na/**\na/**/b\n**/a/**\n",
    b"[a-z]*[!0-9]\n[[:alpha:]]?\n\\[a\\]\n*a*a*a*b\n",
    b"\xef\xbb\xbfa \r\n a\\ \n\xc3\xbc\n",
]
TOKENS = [
    b"*", b"**", b"**/", b"/**", b"?", b"[", b"]", b"[!", b"[^", b"[:alpha:]", b"[a-z]", b"-", b"\\", b"!", b"#",
    b"/", b"a", b"*a", b"\n", b" ", b"\r\n", b"\xff",
]  # fmt: skip


def run(data: bytes) -> object:
    """Read the rules, and match some names. Raises Invalid at most."""
    rules = gitignore.parse(data)
    found = [gitignore.ignored(rules, path, is_directory=False) for path in PATHS]
    for rule in rules:
        assert rule.glob.matches(rule.glob.prefix + rule.glob.suffix) in (True, False)
        plain = rule.glob.prefix
        for path in PATHS:
            if rule.matches(path, is_directory=True):
                compared = path if rule.whole_path else path.rpartition("/")[2]
                assert compared.startswith(plain), (plain, path)
    return tuple(found)


def _backtracking(data: bytes) -> object:
    """What was there before: a regular expression. It ends only where the rules are few and short."""
    rules = gitignore.parse(data)
    for line in data.decode("latin-1").split("\n"):
        stars = re.sub(r"\*+", "*", line[:60])
        if stars.count("*a") > 6:
            raise RecursionError("this one does not end")
    return len(rules)


def _trusting(data: bytes) -> object:
    """One that takes every bracket to be closed."""
    return [line.index(b"]") for line in data.split(b"\n") if b"[" in line]


FAULTS = {"a pattern that goes back": _backtracking, "a bracket that is not closed": _trusting}
