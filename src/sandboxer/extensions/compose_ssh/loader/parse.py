"""YAML to values, bounded in depth, values and expanded text while it is read: no file can exhaust memory or stack.

Works on the parser's events in a loop. An alias costs what it stands for each time it is used.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from sandboxer.document_bounds import Expansion, LimitExceeded
from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.loader.limits import LoadUsage
from sandboxer.extensions.compose_ssh.loader.nodes import RESET, Map, Override, Seq
from sandboxer.extensions.compose_ssh.loader.project import Origin
from sandboxer.extensions.compose_ssh.loader.scalars import resolved

_CORE: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset({"!reset", "!override"})


class ParsedFile(msgspec.Struct, frozen=True):
    """The documents of a file, each a mapping. `shared` where an alias or `<<` lets two places have one value,
    `tagged` where a value is tagged `!reset` or `!override`."""

    documents: list[Map]
    shared: bool
    tagged: bool


def parse(data: bytes, *, name: str, account: LoadUsage) -> ParsedFile:
    """The documents in `data`; `name` is the file's, for messages. Raises Invalid."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Invalid(f"{name}, line {line}: not UTF-8", hint="save the file as UTF-8") from None
    import yaml

    parser = _Parser(name, account)
    try:
        documents = parser.read(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        where = f"{name}, line {mark.line + 1}" if mark is not None else name
        raise Invalid(f"{where}: {what}", hint="mend that line of the compose file") from None
    except yaml.YAMLError as error:
        raise Invalid(f"{name}: {' '.join(str(error).split())[:200]}", hint="mend the compose file") from None
    for document in documents:
        if not isinstance(document, Map):
            raise Invalid(f"{name} is not a mapping of keys to values", hint="a compose file begins with `services:`")
    return ParsedFile(documents, shared=parser.shared, tagged=parser.tagged)


class _Open:
    """A list or mapping whose end has not been seen."""

    __slots__ = ("anchor", "key", "key_at", "merges", "tag", "value")

    def __init__(self, value: Map | Seq, anchor: str | None, tag: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.tag = tag
        self.key: str | None = None
        self.key_at: Origin | None = None
        self.merges: list[tuple[Any, Origin]] = []


class _Parser:
    def __init__(self, name: str, account: LoadUsage) -> None:
        self._name = name
        self._account = account
        self._anchors: dict[str, Any] = {}
        self._expansion = Expansion(account.limits.depth)
        self._open: list[_Open] = []
        self._documents: list[Any] = []
        self._last = Origin(name, 0)
        self.shared = self.tagged = False

    def _at(self, event: Any) -> Origin:
        line = event.start_mark.line + 1
        if line != self._last.line:
            self._last = Origin(self._name, line)
        return self._last

    def _bad(self, what: str, at: Origin) -> Invalid:
        return Invalid(
            f"{at.file}, line {at.line}: {what}",
            hint="mend that line of the compose file",
            details={"file": at.file, "line": at.line},
        )

    def read(self, events: Any) -> list[Any]:
        for event in events:
            try:
                self._take(event, type(event))
            except LimitExceeded as error:
                raise self._bad(str(error), self._at(event)) from None
        return [document for document in self._documents if document is not None]

    def _take(self, event: Any, kind: type) -> None:
        import yaml

        if kind is yaml.ScalarEvent:
            at = self._at(event)
            value, text = self._scalar(event)
            self._account.values(self._name, nodes=1, text=text, line=at.line)
            self._expansion.scalar(text, event.anchor)
            self._settle(value, at, plain=_is_plain(event), anchor=event.anchor)
        elif kind is yaml.AliasEvent:
            self._alias(event)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            self._begin(event, Map() if kind is yaml.MappingStartEvent else Seq())
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._end(event)
        elif kind is yaml.DocumentStartEvent:
            self._anchors.clear()
            self._expansion.document()
            if len(self._documents) >= self._account.limits.documents:
                raise self._bad(f"more than {self._account.limits.documents} documents (`---`)", self._at(event))

    def _alias(self, event: Any) -> None:
        at = self._at(event)
        if event.anchor not in self._anchors:
            raise self._bad(f"alias *{event.anchor[:80]} has no anchor before it", at)
        nodes, text, _ = self._expansion.alias(event.anchor, merged=self._merging())
        self.shared = True
        self._account.values(self._name, nodes=nodes, text=text, line=at.line)
        self._settle(self._anchors[event.anchor], at, plain=False, anchor=None)

    def _merging(self) -> bool:
        """Whether what comes is what a `<<` names."""
        return bool(self._open) and self._open[-1].key == _MERGE

    def _begin(self, event: Any, value: Map | Seq) -> None:
        tag = event.tag
        if tag not in (None, "!", _CORE + ("map" if isinstance(value, Map) else "seq")) and tag not in _TAGS:
            raise self._foreign_tag(event)
        self._expansion.begin(event.anchor)
        if self._open and isinstance(self._open[-1].value, Map) and self._open[-1].key is None:
            raise self._bad("a key that is not a word", self._at(event))
        opened = _Open(value, event.anchor, tag)
        opened.key_at = self._at(event)
        self._account.values(self._name, nodes=1)
        self._open.append(opened)

    def _end(self, event: Any) -> None:
        done = self._open.pop()
        value: Any = done.value
        if done.merges and isinstance(value, Map):
            value = self._merged(value, done.merges)
        if done.tag in _TAGS:
            self.tagged = True
            value = RESET if done.tag == "!reset" else Override(value)
        begun = done.key_at or self._at(event)
        self._expansion.end(merged=self._merging())
        self._settle(value, begun, plain=False, anchor=done.anchor)

    def _scalar(self, event: Any) -> tuple[Any, int]:
        tag, text = event.tag, event.value
        size = len(text) + 8
        if tag is None:
            return (self._resolved(event) if event.style in (None, "") else text), size
        if tag in ("!", _CORE + "str"):
            return text, size
        if tag in _TAGS:
            self.tagged = True
            return (RESET if tag == "!reset" else Override(text)), size
        if tag == _CORE + "null":
            return None, size
        if tag in (_CORE + "int", _CORE + "float", _CORE + "bool"):
            return self._resolved(event), size
        raise self._foreign_tag(event)

    def _resolved(self, event: Any) -> Any:
        value = resolved(event.value)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._bad("a number that is infinite or none: quote it", self._at(event))
        return value

    def _foreign_tag(self, event: Any) -> Invalid:
        shown = event.tag.replace(_CORE, "!!")[:80]
        return self._bad(f"the tag {shown} is not supported", self._at(event))

    def _settle(self, value: Any, at: Origin, *, plain: bool, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = value
        if not self._open:
            self._documents.append(value)
            return
        top = self._open[-1]
        if isinstance(top.value, Seq):
            top.value.add(value, at)
        elif top.key is None:
            top.key, top.key_at = self._key(top, value, at, plain=plain), at if top.key_at is None else top.key_at
            top.value.at.setdefault(top.key, at)
        else:
            key, top.key = top.key, None
            if key == _MERGE:
                top.merges.append((value, at))
            else:
                top.value[key] = value

    def _key(self, top: _Open, value: Any, at: Origin, *, plain: bool) -> str:
        if value == "<<" and plain:
            return _MERGE
        if not isinstance(value, str):
            raise self._bad("a key that is not a word: quote it", at)
        if value in top.value:
            raise self._bad(f"the key {value[:80]!r} is given twice", at)
        return value

    def _merged(self, value: Map, merges: list[tuple[Any, Origin]]) -> Map:
        """`value` on top of what its `<<` name; an earlier one of a list wins."""
        result = Map()
        for source, at in merges:
            for mapping in source if isinstance(source, Seq) else [source]:
                if not isinstance(mapping, Map):
                    raise self._bad("`<<` needs a mapping, or a list of mappings", at)
                for key, item in mapping.items():
                    if key not in result:
                        result.put(key, item, mapping.at.get(key))
        for key, item in value.items():
            result.put(key, item, value.at.get(key))
        return result


_MERGE: Final = "\0<<"
"""The merge key, as no file can write it: NUL is no character of YAML."""


def _is_plain(event: Any) -> bool:
    return event.style in (None, "") and event.tag is None
