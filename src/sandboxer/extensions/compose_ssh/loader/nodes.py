"""Hold the values of a compose file with the place where each was written."""

from __future__ import annotations

from typing import Any, Final, Self

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.loader.project import Origin, Path


class Map(dict[str, Any]):
    """A mapping; `at` tells where each key was written."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[str, Origin] = {}

    def put(self, key: str, value: Any, origin: Origin | None) -> Self:
        """Set `key`."""
        self[key] = value
        if origin is not None:
            self.at[key] = origin
        return self

    def drop(self, key: str) -> Any:
        """Remove `key`; its value, or None."""
        self.at.pop(key, None)
        return self.pop(key, None)


class Seq(list[Any]):
    """A list; `at` tells where each item was written."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        super().__init__()
        self.at: list[Origin | None] = []

    def add(self, value: Any, origin: Origin | None) -> Self:
        """Append `value`."""
        self.append(value)
        self.at.append(origin)
        return self


class Override:
    """A value tagged `!override`: it replaces what an earlier file says instead of being merged with it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _Reset:
    __slots__ = ()


RESET: Final = _Reset()
"""A value tagged `!reset`: it takes away what an earlier file says."""


def format_path(path: Path) -> str:
    """A path as people write it: services.web.ports[0]."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part[:80]}" if text else part[:80]
    return text


def invalid(what: str, path: Path, origin: Origin | None, *, hint: str = "") -> Invalid:
    """What is wrong with the value at `path`, with its file and line."""
    where = f"{origin.file}, line {origin.line}: " if origin else ""
    details = {"path": format_path(path)} | ({"file": origin.file, "line": origin.line} if origin else {})
    subject = f"{format_path(path)} " if path else ""
    return Invalid(f"{where}{subject}{what}", hint=hint or "mend that line of the compose file", details=details)


def copied(value: Any) -> Any:
    """A copy that shares no list or mapping with `value`. The depth of a tree is bounded."""
    if isinstance(value, Map):
        new = Map()
        new.at = dict(value.at)
        for key, item in value.items():
            new[key] = copied(item)
        return new
    if isinstance(value, Seq):
        seq = Seq()
        seq.at = list(value.at)
        seq.extend(copied(item) for item in value)
        return seq
    return Override(copied(value.value)) if isinstance(value, Override) else value


def size(value: Any) -> tuple[int, int]:
    """The number of values in `value`, and the characters of its scalars and keys."""
    if isinstance(value, Override):
        return size(value.value)
    if isinstance(value, dict):
        sizes = [size(item) for item in value.values()]
        return 1 + sum(nodes for nodes, _ in sizes), sum(map(len, value)) + sum(text for _, text in sizes)
    if isinstance(value, list):
        sizes = [size(item) for item in value]
        return 1 + sum(nodes for nodes, _ in sizes), sum(text for _, text in sizes)
    return 1, len(value) if isinstance(value, str) else 8


def plain(value: Any, origins: dict[Path, Origin], path: Path = ()) -> Any:
    """`value` as plain dicts and lists; what is known of its places is put into `origins`."""
    if isinstance(value, Map):
        result = {}
        for key, item in value.items():
            here = (*path, key)
            if key in value.at:
                origins[here] = value.at[key]
            result[key] = plain(item, origins, here)
        return result
    if isinstance(value, Seq):
        items = []
        for index, item in enumerate(value):
            here = (*path, index)
            origin = value.at[index] if index < len(value.at) else None
            if origin is not None:
                origins[here] = origin
            items.append(plain(item, origins, here))
        return items
    return value
