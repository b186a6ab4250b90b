"""Check the kinds of values in a compose file, and give each its canonical form."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import Any, Final

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.loader import scalars
from sandboxer.extensions.compose_ssh.loader.limits import LoadUsage
from sandboxer.extensions.compose_ssh.loader.nodes import RESET, Map, Override, Seq, format_path, invalid
from sandboxer.extensions.compose_ssh.loader.project import Origin, Path


class ValueContext:
    """A place in a file: what it is called, where it was written, the directory that relative paths start from, and
    the account that what is made of it is charged to."""

    __slots__ = ("account", "base", "origin", "path")

    def __init__(self, path: Path, origin: Origin | None, base: str, account: LoadUsage) -> None:
        self.path = path
        self.origin = origin
        self.base = base
        self.account = account

    def charge(self, nodes: int) -> None:
        """Count the values that one value is taken apart into."""
        origin = self.origin
        self.account.values(
            origin.file if origin else format_path(self.path), nodes=nodes, line=origin.line if origin else 0
        )

    def key(self, mapping: Map, key: str) -> ValueContext:
        """The place of a key."""
        return ValueContext((*self.path, key), mapping.at.get(key, self.origin), self.base, self.account)

    def item(self, sequence: Seq, index: int) -> ValueContext:
        """The place of an item."""
        return ValueContext((*self.path, index), sequence.at[index] or self.origin, self.base, self.account)

    def bad(self, what: str, *, hint: str = "") -> Invalid:
        """What is wrong here."""
        return invalid(what, self.path, self.origin, hint=hint)

    def absolute(self, path: str) -> str:
        """`path` as an absolute path; one that begins with `~` is left for the policy to refuse."""
        if path.startswith("~"):
            return path
        joined = posixpath.normpath(posixpath.join(self.base, path))
        return "/" + joined.lstrip("/")


Shape = Callable[[Any, ValueContext], Any]


def mapping(value: Any, spot: ValueContext) -> Map:
    if not isinstance(value, Map):
        raise spot.bad("must be a mapping")
    return value


def text(value: Any, spot: ValueContext) -> str:
    if not isinstance(value, str):
        raise spot.bad("must be a string: quote it")
    return value


def scalar(value: Any, spot: ValueContext) -> str:
    """A string, number or boolean, as text; nothing is the empty text."""
    if isinstance(value, dict | list | Override) or value is RESET:
        raise spot.bad("must be a string, number, boolean or null")
    return scalars.text_of(value)


def flag(value: Any, spot: ValueContext) -> bool:
    found = scalars.boolean(value)
    if found is None:
        raise spot.bad("must be true or false")
    return found


def whole(value: Any, spot: ValueContext) -> int:
    found = scalars.integer(value)
    if found is None:
        raise spot.bad("must be a whole number")
    return found


def mode(value: Any, spot: ValueContext) -> int:
    """Permission bits; a text is octal."""
    if isinstance(value, str) and 0 < len(value) <= 8 and not set(value) - set("01234567"):
        return int(value, 8)
    return whole(value, spot)


def number(value: Any, spot: ValueContext) -> int | float:
    found = scalars.number(value)
    if found is None:
        raise spot.bad("must be a number")
    return found


def size(value: Any, spot: ValueContext) -> str:
    found = scalars.size(value)
    if found is None:
        raise spot.bad('must be a number of bytes, like 512 or "64m"')
    return str(found)


def duration(value: Any, spot: ValueContext) -> str:
    found = scalars.duration(text(value, spot))
    if found is None:
        raise spot.bad('must be a duration, like "90s" or "1m30s"')
    return found


def listed(item: Shape) -> Shape:
    """A list of that kind."""

    def shape(value: Any, spot: ValueContext) -> Seq:
        if not isinstance(value, Seq):
            raise spot.bad("must be a list")
        result = Seq()
        for index, entry in enumerate(value):
            here = spot.item(value, index)
            if entry is not RESET:
                result.add(item(entry.value if isinstance(entry, Override) else entry, here), here.origin)
        return result

    return shape


def one_or_more(item: Shape) -> Shape:
    """One of that kind, or a list of them."""
    several = listed(item)

    def shape(value: Any, spot: ValueContext) -> Seq:
        if isinstance(value, Seq):
            return several(value, spot)  # type: ignore[no-any-return]
        return Seq().add(item(value, spot), spot.origin)

    return shape


texts: Final = listed(text)
scalars_listed: Final = listed(scalar)
text_or_texts: Final = one_or_more(text)


def argv(value: Any, spot: ValueContext) -> Seq | None:
    """A command: words, or a text that is split as a shell would; null takes the image's."""
    if value is None:
        return None
    if isinstance(value, str):
        words = scalars.split_words(value)
        if words is None:
            raise spot.bad("is a command line that cannot be split: write it as a list of words")
        spot.charge(len(words))
        result = Seq()
        for word in words:
            result.add(word, spot.origin)
        return result
    return texts(value, spot)  # type: ignore[no-any-return]


def health_test(value: Any, spot: ValueContext) -> Seq:
    """The command of a health check."""
    if isinstance(value, str):
        return Seq().add("CMD-SHELL", spot.origin).add(value, spot.origin)
    words: Seq = texts(value, spot)
    if words and words[0] not in ("CMD", "CMD-SHELL", "NONE"):
        raise spot.bad('must start with "CMD", "CMD-SHELL" or "NONE"')
    return words


def pairs(*, bare: str | None, item: Shape = scalar, separators: str = "=") -> Shape:
    """A mapping, or a list of NAME=VALUE; a name alone has the value `bare`."""

    def shape(value: Any, spot: ValueContext) -> Map:
        result = Map()
        if isinstance(value, Map):
            for key, entry in value.items():
                here = spot.key(value, key)
                result.put(key, _kept(entry, here, bare, item), here.origin)
            return result
        if not isinstance(value, Seq):
            raise spot.bad("must be a mapping, or a list of NAME=VALUE")
        for index, entry in enumerate(value):
            here = spot.item(value, index)
            name, found, rest = text(entry, here).partition(separators)
            result.put(name, item(rest, here) if found else bare, here.origin)
        return result

    return shape


def _kept(entry: Any, spot: ValueContext, bare: str | None, item: Shape) -> Any:
    if entry is RESET:
        return entry
    if isinstance(entry, Override):
        return Override(_kept(entry.value, spot, bare, item))
    return bare if entry is None else item(entry, spot)


environment: Final = pairs(bare=None)
labels: Final = pairs(bare="")


def options(value: Any, spot: ValueContext) -> Map:
    """A mapping of options to texts."""
    result = Map()
    for key, entry in mapping(value, spot).items():
        here = spot.key(value, key)
        result.put(key, _kept(entry, here, "", scalar), here.origin)
    return result


def keyed(item: Shape) -> Shape:
    """A mapping of names to that kind; null stays null."""

    def shape(value: Any, spot: ValueContext) -> Map:
        result = Map()
        for key, entry in mapping(value, spot).items():
            here = spot.key(value, key)
            result.put(key, within(item, entry, here), here.origin)
        return result

    return shape


def within(item: Shape, entry: Any, spot: ValueContext) -> Any:
    """`item` of the value below a `!override`, and of everything that is neither reset nor null."""
    if entry is RESET or (entry is None and item is not argv):
        return entry
    if isinstance(entry, Override):
        return Override(within(item, entry.value, spot))
    return item(entry, spot)


def record(table: Mapping[str, Shape]) -> Shape:
    """A mapping whose keys have the kinds of `table`; a key that is not in it is kept as it is."""

    def shape(value: Any, spot: ValueContext) -> Map:
        result = Map()
        for key, entry in mapping(value, spot).items():
            here = spot.key(value, key)
            item = table.get(key)
            if item is None:
                result.put(key, entry, here.origin)
                continue
            result.put(key, within(item, entry, here), here.origin)
        return result

    return shape
