"""Texts without the values of secrets: the last line, for words of others that we pass on.

A provider's answer, a program's complaint or an exception may quote the key that it was given. Whoever holds a secret
watches it here for as long as it lives; every error of ours is made without what is watched, whoever wrote its words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from threading import Lock
    from weakref import WeakSet

SHOWN: Final = "(secret)"
SHORTEST: Final = 6
"""Values that are shorter are not looked for: they would be found in ordinary words."""
_BEGINNING: Final = 12
"""How much of a value's beginning is a part of it, and not chance: texts are cut, also in the middle of a value."""
_RUN: Final = re.compile(r"[A-Za-z0-9_-]{12,}")
"""What is looked for by itself in a value: letters and digits look the same however often a text was escaped, and lines
are cut."""


_TOKEN: Final = re.compile(r"sbx_[A-Za-z0-9]{16,}")
"""A token of the HTTP API, or enough of one: only its hash is kept, so its form is all there is to know it by."""


class Watched(Protocol):
    """What holds a value that is not to be said."""

    def reveal(self) -> str:
        """The value."""

    def __hash__(self) -> int: ...


class _Register:
    """Who is watched. Made with the first secret: most commands have none, and errors are imported by all."""

    def __init__(self) -> None:
        from threading import Lock
        from weakref import WeakSet

        self.lock: Lock = Lock()
        self.living: WeakSet[Watched] = WeakSet()


_REGISTER: Final[dict[str, _Register]] = {}


def watch(secret: Watched) -> None:
    """From now on, as long as `secret` lives, no error says its value."""
    register = _REGISTER.get("") or _REGISTER.setdefault("", _Register())
    with register.lock:
        register.living.add(secret)


def masked(text: str) -> str:
    """`text` without the values that are watched now, as they are or as JSON or a URL writes them."""
    if "sbx_" in text:
        text = _TOKEN.sub(SHOWN, text)
    register = _REGISTER.get("")
    if register is None:
        return text
    with register.lock:
        living = list(register.living)
    forms = sorted({form for secret in living for form in _forms(secret.reveal())}, key=len, reverse=True)
    for form in forms:
        text = text.replace(form, SHOWN)
    for form in forms:  # after all the whole ones: two forms begin alike
        text = _without_beginnings(text, form)
    return text


def masked_values(value: Any) -> Any:
    """The same for every text in a document, its keys too."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {masked_values(key): masked_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked_values(inner) for inner in value]
    return value


def _forms(value: str) -> Iterator[str]:
    import json
    from urllib.parse import quote, quote_plus

    if len(value) < SHORTEST:
        return
    yield value
    if not _RUN.fullmatch(value):
        yield from _RUN.findall(value)
        yield json.dumps(value, ensure_ascii=False)[1:-1]
        yield json.dumps(value)[1:-1]
        yield repr(value)[1:-1]
        yield quote(value, safe="")
        yield quote_plus(value)


def _without_beginnings(text: str, value: str) -> str:
    """`text` without what begins like `value`, where that is long enough to be no chance."""
    start = value[:_BEGINNING]
    if len(start) < _BEGINNING:
        return text
    at = text.find(start)
    while at >= 0:
        end = at + len(start)
        while end - at < len(value) and end < len(text) and text[end] == value[end - at]:
            end += 1
        text = text[:at] + SHOWN + text[end:]
        at = text.find(start, at + len(SHOWN))
    return text
