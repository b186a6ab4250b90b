"""Read files of variables (`.env`, env_file, label_file) as docker compose v2 does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.loader.interpolation import interpolate
from sandboxer.extensions.compose_ssh.loader.limits import LoadUsage

_BLANK: Final = " \t\v\f\r\x85\xa0"
_EXPORT: Final = re.compile(r"export[^\S\n]+")
_SOLID: Final = re.compile(r"\S")
_KEY_END: Final = re.compile(r"[=:\n]")
_KEY_MARKS: Final = frozenset("_.-[]")
_ESCAPE: Final = re.compile(r"\\([abcfnrtv$\"\\])")
_ESCAPED: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}


def parse(data: bytes, *, name: str, known: Mapping[str, str], account: LoadUsage) -> dict[str, str]:
    """The variables in `data`. A `$NAME` in a value comes from `known`, else from the lines before it; so does a line
    that is a name alone. Raises Invalid with the line."""
    text = data.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    return _Reader(text, name, known, account).read()


class _Reader:
    def __init__(self, text: str, name: str, known: Mapping[str, str], account: LoadUsage) -> None:
        self._text = text
        self._name = name
        self._known = known
        self._account = account
        self._found: dict[str, str] = {}
        self._place = 0

    def read(self) -> dict[str, str]:
        while True:
            self._skip()
            if self._place >= len(self._text):
                return self._found
            self._statement()

    def _bad(self, what: str, place: int) -> Invalid:
        line = self._text.count("\n", 0, place) + 1
        return Invalid(
            f"{self._name}, line {line}: {what}",
            hint="write NAME=value, the value in quotes where it has spaces",
            details={"file": self._name, "line": line},
        )

    def _skip(self) -> None:
        """Past white space and comments, one step at a time: the pattern can't backtrack."""
        place = self._place
        while (match := _SOLID.search(self._text, place)) and match[0] == "#":
            end = self._text.find("\n", match.start())
            place = len(self._text) if end < 0 else end
        self._place = match.start() if match else len(self._text)

    def _statement(self) -> None:
        begin = self._place
        if match := _EXPORT.match(self._text, begin):
            self._place = match.end()
        stop = _KEY_END.search(self._text, self._place)
        end = stop.start() if stop else len(self._text)
        key = self._text[self._place : end].strip()
        for char in key:
            if not (char.isalnum() or char in _KEY_MARKS or char in _BLANK):
                raise self._bad(f"the character {char!r} cannot be in the name of a variable", begin)
        if any(char.isspace() for char in key):
            raise self._bad("the name of a variable has no space in it", begin)
        self._place = min(end + 1, len(self._text))
        if self._text[end : end + 1] not in ("=", ":"):
            if key in self._known:
                self._set(key, self._known[key])
            return
        while self._place < len(self._text) and self._text[self._place] in _BLANK:
            self._place += 1
        self._set(key, self._value(begin))

    def _set(self, key: str, value: str) -> None:
        self._account.values(self._name, nodes=1, text=len(key) + len(value))
        self._found[key] = value

    def _value(self, begin: int) -> str:
        quote = self._text[self._place : self._place + 1]
        if quote not in ("'", '"') or not quote:
            end = self._text.find("\n", self._place)
            end = len(self._text) if end < 0 else end
            value = self._text[self._place : end].partition(" #")[0].rstrip()
            self._place = end
            return self._expanded(value, begin)
        end = self._closing(quote)
        if end < 0:
            raise self._bad(f"the quote {quote} is never closed", begin)
        value = self._text[self._place + 1 : end]
        self._place = end + 1
        if quote == "'":
            return value.replace("\\'", "'")
        return self._expanded(_ESCAPE.sub(_unescaped, value), begin)

    def _closing(self, quote: str) -> int:
        text, place = self._text, self._place + 1
        while place < len(text):
            if text[place] == quote:
                return place
            place += 2 if text[place] == "\\" else 1
        return -1

    def _expanded(self, value: str, begin: int) -> str:
        # what the caller gave wins over a line before, as it wins in the end
        return interpolate(
            value,
            _Both(self._known, self._found),
            fail=lambda what: self._bad(f"it {what}", begin),
            most=self._account.text_left,
        )


def _unescaped(match: re.Match[str]) -> str:
    if match[1] == "$":
        return "$$"
    return _ESCAPED.get(match[1], match[0])


class _Both(Mapping[str, str]):
    """The first mapping, else the second: no copy for each line."""

    def __init__(self, first: Mapping[str, str], second: Mapping[str, str]) -> None:
        self._first = first
        self._second = second

    def __getitem__(self, key: str) -> str:
        return self._first[key] if key in self._first else self._second[key]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._second, **self._first})

    def __len__(self) -> int:
        return len({**self._second, **self._first})
