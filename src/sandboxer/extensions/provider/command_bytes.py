"""Carry commands whose bytes are not text over protocols that carry nothing else. Pure.

Words from a command line hold bytes that are not UTF-8 as lone surrogates (`os.fsdecode`). JSON and protocol buffers
refuse these, so such a command goes as the text of a shell, in printf's octal escapes, which every POSIX sh undoes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sandboxer.errors import Invalid
from sandboxer.names import check_env_name

_DECODE: Final = 'eval "$(printf "$1")"; '
"""The text ends in a quote or a letter, so the substitution takes no line break off it."""
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - frozenset(b"%\\")


def encode(word: str, *, what: str = "an argument") -> bytes:
    """The bytes of a word. Raises Invalid for a NUL, and for a lone surrogate that stands for no byte."""
    if "\0" in word:
        raise Invalid(f"{what} holds a NUL character", hint="no program can be given one")
    try:
        return word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Invalid(
            f"{what} holds a lone surrogate, which stands for no byte", hint="write it as UTF-8, or as the bytes meant"
        ) from None


def check(argv: Sequence[str], *, env: Mapping[str, str], cwd: str | None) -> None:
    """Raise Invalid for what no program can be given."""
    for word in argv:
        encode(word)
    for name, value in env.items():
        check_env_name(name)
        encode(value, what=f"the variable {name}")
    if cwd is not None:
        encode(cwd, what="the working directory")


def is_text(words: Iterable[str]) -> bool:
    """Whether UTF-8 can carry all of them."""
    return all(word.isascii() or not any("\ud800" <= char <= "\udfff" for char in word) for word in words)


def carried(words: Sequence[str], env: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """`SH -c SCRIPT NAME WORD...` and its environment as a protocol of text can carry them: unchanged where they are
    text, else SCRIPT gets them out of one ASCII word. Raises Invalid."""
    shell, option, script, name, *rest = words
    check(words, env=env, cwd=None)
    if is_text(rest) and is_text(env.values()):
        return list(words), dict(env)
    lines = [f"export {key}={shlex.quote(value)}" for key, value in env.items() if not is_text([value])]
    lines.append(shlex.join(["set", "--", *rest]))
    text = "; ".join(lines).encode("utf-8", "surrogateescape")
    escaped = "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03o}" for byte in text)
    return [shell, option, _DECODE + script, name, escaped], {
        key: value for key, value in env.items() if is_text([value])
    }
