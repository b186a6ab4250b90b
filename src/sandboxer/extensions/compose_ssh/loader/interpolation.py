"""Variables in texts: `$A`, `${A}`, `${A:-x}`, `${A-x}`, `${A:?e}`, `${A?e}`, `${A:+x}`, `${A+x}`, nested, and `$$`.

The values of variables are never looked at again for more variables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader.limits import DEFAULT, TOO_MUCH_TEXT, LoadUsage
from sandboxer.extensions.compose_ssh.loader.nodes import Map, Override, Seq, invalid
from sandboxer.extensions.compose_ssh.loader.project import Origin, Path

Fail = Callable[[str], Exception]

_NAME: Final = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_MARK: Final = re.compile(r"\$(?:(?P<escaped>\$)|(?P<named>[_a-zA-Z][_a-zA-Z0-9]*)|(?P<braced>\{))")
_BRACE: Final = re.compile(r"[{}]")


def interpolate(
    text: str, variables: Mapping[str, str], *, fail: Fail, unset: set[str] | None = None, most: int = DEFAULT.text
) -> str:
    """`text` with its variables replaced; names that are not set are put into `unset`. Raises what `fail` makes, also
    for what would be longer than `most` characters, before it is."""
    return _Template(variables, fail, set() if unset is None else unset, most).replaced(text)


@dataclass(frozen=True, slots=True)
class _Template:
    variables: Mapping[str, str]
    fail: Fail
    unset: set[str]
    most: int

    def replaced(self, text: str, depth: int = 0) -> str:
        if "$" not in text:
            return text
        if depth > DEFAULT.variables:
            raise self.fail(f"has variables nested deeper than {DEFAULT.variables} levels")
        parts: list[str] = []
        place = length = 0
        while match := _MARK.search(text, place):
            parts.append(text[place : match.start()])
            place = match.end()
            if match["escaped"]:
                parts.append("$")
            elif match["named"]:
                parts.append(self._value(match["named"]))
            else:
                end = _closing(text, match.start() + 1)
                if end < 0:
                    raise self.fail(f"has a variable without its closing brace: {text[match.start() :][:80]!r}")
                parts.append(self._braced(text[place:end], depth))
                place = end + 1
            length += len(parts[-2]) + len(parts[-1])
            if length > self.most:
                raise self.fail(f"makes {TOO_MUCH_TEXT.format(DEFAULT.text // 1024)}")
        parts.append(text[place:])
        return "".join(parts)

    def _value(self, name: str) -> str:
        if name not in self.variables:
            self.unset.add(name)
            return ""
        return self.variables[name]

    def _braced(self, inner: str, depth: int) -> str:
        match = _NAME.match(inner)
        rest = inner[match.end() :] if match else inner
        operator = rest[:2] if rest[:1] == ":" else rest[:1]
        if match is None or "\n" in inner or (rest and operator not in _OPERATORS):
            raise self.fail(f"has {'${' + inner[:80] + '}'!r}, which is no variable: write a `$` that is meant as `$$`")
        name, word = match[0], rest[len(operator) :]
        if not rest:
            return self._value(name)
        present = bool(self.variables.get(name)) if operator[0] == ":" else name in self.variables
        kind = operator[-1]
        if kind == "+":
            return self.replaced(word, depth + 1) if present else ""
        if present:
            return self.variables[name]
        word = self.replaced(word, depth + 1)
        if kind == "?":
            raise self.fail(f"needs the variable {name}" + (f": {word[:200]}" if word else ""))
        return word


def _closing(text: str, start: int) -> int:
    """Where the brace at `start` is closed; every brace counts, as in docker compose."""
    depth = 0
    for match in _BRACE.finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if depth > 4 * DEFAULT.variables:
            break
        if depth == 0:
            return match.start()
    return -1


_OPERATORS: Final = frozenset({":-", "-", ":?", "?", ":+", "+"})


class Interpolation:
    """Replaces variables in a whole document, and pays for what they make of it."""

    def __init__(self, variables: Mapping[str, str], account: LoadUsage, unset: set[str]) -> None:
        self._variables = variables
        self._account = account
        self._unset = unset

    def within(self, value: Any, path: Path = (), origin: Origin | None = None) -> Any:
        """`value`, its variables replaced where they stand: for values that no two places share."""
        if isinstance(value, str):
            return self._text(value, path, origin) if "$" in value else value
        if isinstance(value, Map):
            for key, item in value.items():
                if isinstance(item, str):
                    if "$" in item:
                        value[key] = self._text(item, (*path, key), value.at.get(key, origin))
                elif isinstance(item, Map | Seq | Override):
                    self.within(item, (*path, key), value.at.get(key, origin))
        elif isinstance(value, Seq):
            for index, item in enumerate(value):
                value[index] = self.within(item, (*path, index), value.at[index] or origin)
        elif isinstance(value, Override):
            value.value = self.within(value.value, path, origin)
        return value

    def of(self, value: Any, path: Path = (), origin: Origin | None = None) -> Any:
        """A copy of `value` with its variables replaced; shares nothing with it."""
        if isinstance(value, str):
            return self._text(value, path, origin) if "$" in value else value
        if isinstance(value, Map):
            new = Map()
            for key, item in value.items():
                at = value.at.get(key, origin)
                new.put(key, self.of(item, (*path, key), at), at)
            return new
        if isinstance(value, Seq):
            seq = Seq()
            for index, item in enumerate(value):
                at = value.at[index] or origin
                seq.add(self.of(item, (*path, index), at), at)
            return seq
        if isinstance(value, Override):
            return Override(self.of(value.value, path, origin))
        return value

    def _text(self, text: str, path: Path, origin: Origin | None) -> str:
        def fail(what: str) -> Exception:
            return invalid(
                what, path, origin, hint="set the variable in the repository's .env or in the profile's options.env"
            )

        result = interpolate(
            text, self._variables, fail=fail, unset=self._unset, most=self._account.text_left + len(text)
        )
        self._account.values(origin.file if origin else "the project", text=max(0, len(result) - len(text)))
        return result
