"""Read compose YAML and write it again, without changing the meaning of a single scalar.

The front ends read YAML by different rules: for one of them `yes` is a boolean and `22:22` the number 1342, for another
both are strings. So nothing is resolved here: an unquoted scalar stays the text that was written (`Plain`), and is
written unquoted again. Merge keys (`<<`) and aliases are expanded, within limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sandboxer.document_bounds import SMALL, Bounds, Expansion, LimitExceeded
from sandboxer.errors import Invalid

BOUNDS: Final = Bounds(size=SMALL.size, values=50_000, text=8 << 20)
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_CORE: Final = "tag:yaml.org,2002:"


class Plain(str):
    """The text of an unquoted scalar."""

    __slots__ = ()


Document = dict[str, Any]


def is_null(value: object) -> bool:
    """Whether a value stands for "nothing" in every reading of YAML."""
    return value is None or (isinstance(value, Plain) and value in _NULLS)


def load(data: bytes, *, name: str) -> Document:
    """The mapping in `data`; `name` is the file's name for messages. Raises Invalid with the line that is wrong."""
    if len(data) > BOUNDS.size:
        raise Invalid(f"{name} is larger than {BOUNDS.size // 1024} KiB", hint="a compose file is a few KiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Invalid(f"{name}, line {line}: not UTF-8", hint="save the file as UTF-8") from None
    value = _Reader(name).read(text)
    if not isinstance(value, dict):
        raise Invalid(f"{name} is not a mapping of keys to values", hint="a compose file begins with `services:`")
    return value


def dump(document: Mapping[str, Any]) -> bytes:
    """The document as YAML that every front end reads alike. The inverse of `load`."""
    import yaml

    def node(value: Any) -> yaml.Node:
        if isinstance(value, Mapping):
            pairs = [(node(key), node(item)) for key, item in value.items()]
            return yaml.MappingNode(_CORE + "map", pairs, flow_style=False)
        if isinstance(value, list | tuple):
            return yaml.SequenceNode(_CORE + "seq", [node(item) for item in value], flow_style=False)
        if isinstance(value, Plain):
            return yaml.ScalarNode(resolver.resolve(yaml.ScalarNode, str(value), (True, False)), str(value))
        if isinstance(value, bool):
            return yaml.ScalarNode(_CORE + "bool", "true" if value else "false")
        if isinstance(value, int):
            return yaml.ScalarNode(_CORE + "int", str(value))
        if value is None:
            return yaml.ScalarNode(_CORE + "null", "null")
        return yaml.ScalarNode(_CORE + "str", str(value), style='"')

    resolver: Any = yaml.resolver.Resolver()
    text: str = yaml.serialize(node(document), Dumper=_dumper(), allow_unicode=True, width=1_000_000)
    return text.encode("utf-8")


def _dumper() -> Any:
    import yaml

    return getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Reader:
    """Builds values from parser events: iterative, so that no file can exhaust the stack."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._expansion = Expansion(BOUNDS.depth)
        self._anchors: dict[str, Any] = {}

    def _bad(self, what: str, mark: Any) -> Invalid:
        where = f"{self._name}, line {mark.line + 1}" if mark is not None else self._name
        return Invalid(f"{where}: {what}", hint="mend that line and try again")

    def read(self, text: str) -> Any:
        import yaml

        try:
            return self._build(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        except yaml.MarkedYAMLError as error:
            what = " ".join(part for part in (error.context, error.problem) if part)
            raise self._bad(what, error.problem_mark or error.context_mark) from None
        except yaml.YAMLError as error:
            raise self._bad(" ".join(str(error).split())[:200], None) from None

    def _build(self, events: Any) -> Any:
        import yaml

        root: list[Any] = []
        open_: list[_Open] = []
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._bad("a second document (`---`)", event.start_mark)
                continue
            try:
                self._take(event, open_, root)
                self._expansion.check(BOUNDS)
            except LimitExceeded as error:
                raise self._bad(str(error), event.start_mark) from None
        return root[0] if root else None

    def _take(self, event: Any, open_: list[_Open], root: list[Any]) -> None:
        import yaml

        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._bad(f"alias *{event.anchor} has no anchor before it", event.start_mark)
            self._expansion.alias(event.anchor)
            self._place(open_, root, self._anchors[event.anchor], event.start_mark)
        elif isinstance(event, yaml.ScalarEvent):
            self._expansion.scalar(len(event.value), event.anchor)
            value = self._scalar(event)
            if event.anchor:
                self._anchors[event.anchor] = value
            self._place(open_, root, value, event.start_mark)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self._expansion.begin(event.anchor)
            kind = "seq" if isinstance(event, yaml.SequenceStartEvent) else "map"
            if event.tag not in (None, "!", _CORE + kind):
                raise self._foreign_tag(event)
            open_.append(_Open([] if kind == "seq" else {}, event.anchor, event.start_mark))
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            self._expansion.end()
            done = open_.pop()
            merged = self._merged(done)
            if done.anchor:
                self._anchors[done.anchor] = merged
            self._place(open_, root, merged, done.mark)

    def _scalar(self, event: Any) -> str:
        if event.tag in (None, "!"):
            return Plain(event.value) if event.style in (None, "") and event.tag is None else event.value
        if event.tag == _CORE + "str":
            return str(event.value)
        if event.tag in {_CORE + kind for kind in ("int", "float", "bool", "null")}:
            return Plain(event.value)
        raise self._foreign_tag(event)

    def _foreign_tag(self, event: Any) -> Invalid:
        shown = event.tag.replace(_CORE, "!!")
        error = self._bad(f"the tag {shown} is not supported", event.start_mark)
        return Invalid(error.message, hint="write the value without a tag; overrides are for a second compose file")

    def _place(self, open_: list[_Open], root: list[Any], value: Any, mark: Any) -> None:
        if not open_:
            root.append(value)
            return
        top = open_[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is None:
            if not isinstance(value, str):
                raise self._bad("a key that is not a word", mark)
            if not (value == "<<" and isinstance(value, Plain)) and value in top.value:
                raise self._bad(f"the key {value[:80]!r} is given twice", mark)
            top.key = value
        else:
            key, top.key = top.key, None
            if key == "<<" and isinstance(key, Plain):
                top.merges.append((value, mark))
            else:
                top.value[str(key)] = value

    def _merged(self, done: _Open) -> Any:
        if not done.merges:
            return done.value
        merged: dict[str, Any] = {}
        for source, mark in done.merges:
            for mapping in source if isinstance(source, list) else [source]:
                if not isinstance(mapping, dict):
                    raise self._bad("`<<` needs a mapping", mark)
                for key, value in mapping.items():
                    merged.setdefault(key, value)
        return {**merged, **done.value}


class _Open:
    """A list or mapping whose end has not been seen."""

    __slots__ = ("anchor", "key", "mark", "merges", "value")

    def __init__(self, value: Any, anchor: str | None, mark: Any) -> None:
        self.value = value
        self.anchor = anchor
        self.mark = mark
        self.key: str | None = None
        self.merges: list[tuple[Any, Any]] = []
