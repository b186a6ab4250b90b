"""Values that must not be found, and the search for them: in files, in outputs, in command lines while they run."""

from __future__ import annotations

import base64
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

MARK: Final = "cnry"
_RAW: Final = re.compile(rb"cnry[0-9a-f]{6,}", re.IGNORECASE)
"""A canary, or so much of one that it is no chance."""
EVERY_SECONDS: Final = 0.002


class Canaries:
    """Made-up values, each with a name of its own, so that a find tells which channel leaks."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._values)

    def new(self, channel: str, *, before: str = "", after: str = "") -> str:
        """A value for a channel; `before` and `after` stand around it and are part of what is secret."""
        assert channel not in self._values
        self._values[channel] = f"{MARK}{secrets.token_hex(10)}"
        return f"{before}{self._values[channel]}{after}"

    def adopt(self, channel: str, value: str) -> None:
        """A value that somebody else made up, to be found nowhere either."""
        self._values[channel] = value

    def value(self, channel: str) -> str:
        """The value of a channel, without what stands around it."""
        return self._values[channel]

    def channels(self, start: str = "") -> list[str]:
        """The names that begin so."""
        return [name for name in list(self._values) if name.startswith(start)]

    def hits(self, data: bytes) -> list[str]:
        """The channels whose values are in `data`: as they are, in parts, reversed, in base64 or in hexadecimal."""
        found = {self._named(match[0].decode().lower()) for match in _RAW.finditer(data)}
        found |= {name for name, forms in self._forms().items() if any(form in data for form in forms)}
        return sorted(found)

    def _named(self, part: str) -> str:
        for name, value in list(self._values.items()):  # another thread adds some meanwhile
            if value.startswith(part[: len(value)]):
                return name
        return f"a canary of nobody, {part[:10]}..."

    def _forms(self) -> dict[str, list[bytes]]:
        return {name: list(_encoded(value.encode())) for name, value in list(self._values.items())}


def _encoded(value: bytes) -> Iterator[bytes]:
    yield value
    yield value.hex().encode()
    yield value[::-1]
    for shift in range(3):
        # what stands before it decides its form; the ends depend on the neighbours, so they are left out
        text = base64.b64encode(b"\0" * shift + value)
        yield text[4:-4]


class Watch:
    """Looks at the command lines of every process on this machine while it is entered, except of those in `own`."""

    def __init__(self, canaries: Canaries, *, own: Iterable[int] = ()) -> None:
        self._canaries = canaries
        self._own = {str(pid) for pid in own}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self.found: dict[str, str] = {}
        self.seen = 0
        """How many command lines were read."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        known: dict[str, bytes] = {}
        while not self._ending.is_set():
            for entry in Path("/proc").iterdir():
                if not entry.name.isdigit() or entry.name in self._own:
                    continue
                try:
                    words = (entry / "cmdline").read_bytes()
                except OSError:
                    continue  # it ended meanwhile
                if known.get(entry.name) == words:
                    continue
                known[entry.name] = words
                self.seen += 1
                for name in self._canaries.hits(words):
                    self.found[name] = words.replace(b"\0", b" ").decode("utf-8", "replace")
            time.sleep(EVERY_SECONDS)


def in_files(canaries: Canaries, root: Path, *, planted: Iterable[Path] = ()) -> list[str]:
    """Where below `root` a canary is in a file's content or name, except in the files where it was put."""
    known = {path.resolve() for path in planted}
    found = []
    for path in sorted(root.rglob("*")):
        if path.resolve() in known:
            continue
        held = canaries.hits(str(path.relative_to(root)).encode())
        if path.is_file() and not path.is_symlink():
            held += canaries.hits(path.read_bytes())
        found += [f"{name} in {path.relative_to(root)}" for name in held]
    return found
