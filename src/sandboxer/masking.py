"""Texts without the values of secrets: the last line, for words of others that we pass on.

A provider's answer, a program's complaint or an exception may quote the key that it was given, or any part of it, as it
is or as base64, hexadecimal, JSON or a URL write it. Whoever holds a secret watches it here for as long as it lives;
every error of ours is made without what is watched, whoever wrote its words.

A text is looked through once for each secret: twelve characters that follow one another in a form of the value are a
part of it, and not chance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from threading import Lock
    from weakref import WeakKeyDictionary

SHOWN: Final = "(secret)"
SHORTEST: Final = 6
"""Values that are shorter are not looked for: they would be found in ordinary words."""
PART: Final = 12
"""How many characters of a value that follow one another are a part of it: texts are cut, at either end."""


_TOKEN: Final = re.compile(r"sbx_[A-Za-z0-9]{16,}")
"""A token of the HTTP API, or enough of one: only its hash is kept, so its form is all there is to know it by."""


class SecretValue(Protocol):
    """What holds a value that is not to be said."""

    def reveal(self) -> str:
        """The value."""

    def __hash__(self) -> int: ...


class _Register:
    """Who is watched. Made with the first secret: most commands have none, and errors are imported by all."""

    def __init__(self) -> None:
        from threading import Lock
        from weakref import WeakKeyDictionary

        self.lock: Lock = Lock()
        self.living: WeakKeyDictionary[SecretValue, _Known | None] = WeakKeyDictionary()


class _Known:
    """What a value is recognized by. Made when a text is first looked through: most secrets never meet an error."""

    def __init__(self, value: str) -> None:
        forms = {form for form in _forms(value) if len(form) >= SHORTEST}
        self.short = sorted((form for form in forms if len(form) < PART), key=len, reverse=True)
        self.parts = frozenset(form[at : at + PART] for form in forms for at in range(len(form) - PART + 1))


_REGISTER: Final[dict[str, _Register]] = {}


def watch(secret: SecretValue) -> None:
    """From now on, as long as `secret` lives, no error says its value."""
    register = _REGISTER.get("") or _REGISTER.setdefault("", _Register())
    with register.lock:
        register.living.setdefault(secret, None)


def masked(text: str) -> str:
    """`text` without the values that are watched now and without parts of them, in whatever form."""
    if "sbx_" in text:
        text = _TOKEN.sub(SHOWN, text)
    register = _REGISTER.get("")
    if register is None:
        return text
    # all of them are looked for in the text as it was: two values may have a part in common
    return _without(text, sorted(span for known in _known(register) for span in _spans(text, known)))


def _known(register: _Register) -> list[_Known]:
    with register.lock:
        found = list(register.living.items())
    made: list[_Known] = []
    for secret, known in found:
        if known is None:
            known = _Known(secret.reveal())
            with register.lock:
                register.living[secret] = known
        made.append(known)
    return made


def _spans(text: str, known: _Known) -> Iterator[tuple[int, int]]:
    """Where in `text` a value is, or a part of it: beginnings and ends, which may overlap."""
    if known.parts:
        parts = known.parts
        yield from ((at, at + PART) for at in range(len(text) - PART + 1) if text[at : at + PART] in parts)
    for form in known.short:
        at = text.find(form)
        while at >= 0:
            yield at, at + len(form)
            at = text.find(form, at + 1)


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """`text` with one `SHOWN` for each run of spans that overlap or touch."""
    kept = -1
    pieces: list[str] = []
    for start, end in spans:
        if start > kept:
            pieces += [text[max(kept, 0) : start], SHOWN]
        kept = max(kept, end)
    return "".join(pieces) + text[max(kept, 0) :]


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
    """The value as it is, and as others write it."""
    if len(value) < SHORTEST:
        return
    yield value
    raw = value.encode("utf-8", "surrogatepass")
    yield raw.hex()
    yield raw.hex().upper()
    yield from _base64(raw)
    yield "".join(f"%{byte:02x}" for byte in raw)
    yield "".join(f"%{byte:02X}" for byte in raw)
    if not value.isalnum():
        yield from _escaped(value)


def _base64(raw: bytes) -> Iterator[str]:
    """In both alphabets, wherever in a triple of bytes it begins; without what depends on the neighbours."""
    from binascii import b2a_base64

    for before in range(3):
        padded = bytes(before) + raw
        text = b2a_base64(padded, newline=False).decode()
        # the characters whose six bits are all of the value
        form = text[(0, 2, 3)[before] : len(padded) * 8 // 6]
        yield form
        yield form.replace("+", "-").replace("/", "_")
    whole = b2a_base64(raw, newline=False).decode().rstrip("=")
    yield whole
    yield whole.replace("+", "-").replace("/", "_")


def _escaped(value: str) -> Iterator[str]:
    import json
    from html import escape
    from urllib.parse import quote, quote_plus

    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield json.dumps(value)[1:-1]
    yield repr(value)[1:-1]
    yield quote(value, safe="", errors="replace")
    yield quote_plus(value, errors="replace")
    yield escape(value)
