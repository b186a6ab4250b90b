"""Strings that would do harm where somebody builds a shell line, a path or an option from them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

_SHELL = (
    "$(touch {m})", "`touch {m}`", ";touch {m};", "|touch {m}|", "&touch {m}&", "\ntouch {m}\n", "&&touch {m}",
    "'$(touch {m})'", '"$(touch {m})"', "';touch {m};'", '";touch {m};"', "${{IFS}}touch {m}", "<(touch {m})",
    ">{m}", ">>{m}", "%0atouch {m}", "\\$(touch {m})", "{{touch,{m}}}", "$'\\ntouch {m}\\n'", "\rtouch {m}\r",
)  # fmt: skip
_OPTIONS = (
    "-oProxyCommand=touch {m}", "--help", "--rsync-path=touch {m}", "-e", "--", "-", "-i{m}", "--init-file={m}",
    "-Fnone", "--privileged", "-v/:/host", "--entrypoint=touch",
)  # fmt: skip
_PATHS = (
    "../../../../{m}", "/etc/passwd", "~root/.ssh", "..", ".", "//", "a/../../b", "/proc/self/environ", "sbx-x/..",
)  # fmt: skip
_ODD = (
    "", " ", "\t", "\x00", "\x1b[2J", "\x7f", "\u202e", "\ufeff", "\ud7ff", "é", "日本", "a" * 5000, "{m}", "%s%n",
    "null", "true", "0", "-1", "1e999", "[]", "{{}}", "{{{{7*7}}}}", "${{jndi:ldap://x}}", "a:b", "a=b", "@x", "#",
    "!x", "*", "?", "[a-z]", "sandboxer.id", "__proto__", "\\", "\\\\", "//x", "user@host", "user@host:22", "[::1]:22",
)  # fmt: skip
SEEDS = (*_SHELL, *_OPTIONS, *_PATHS, *_ODD)


def hostile(count: int, marker: Path, *, seed: int = 24) -> Iterator[str]:
    """`count` strings: every seed, then random mixtures of them. A file `marker` appears when one is executed."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    plain = [text.format(m=marker) for text in SEEDS]
    yield from plain[:count]
    for _ in range(count - len(plain)):
        parts = chance.choices(plain, k=chance.randint(1, 3))
        yield chance.choice(["", " ", "\n", "-", "'", "/"]).join(parts)[:6000]
