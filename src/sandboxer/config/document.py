"""Reading one YAML document into a model; a mistake is told with file, line and key."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from sandboxer.errors import Invalid

if TYPE_CHECKING:
    import yaml

T = TypeVar("T")
MAX_BYTES = 1 << 20
"""The largest document that is read, in bytes."""

_AT = re.compile(r" - at `(.*)`$")
_UNKNOWN = re.compile(r"unknown field `(.*?)`")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def load(path: Path, model: type[T]) -> T:
    """The document at `path` as `model`. Raises Invalid naming file, line and key."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}", hint=f"look at `ls -l {path}`") from error
    return parse(raw, model, source=str(path))


def parse(raw: bytes, model: type[T], *, source: str) -> T:
    """The YAML text `raw` as `model`; `source` is what error messages call it."""
    if len(raw) > MAX_BYTES:
        raise Invalid(f"{source} is larger than 1 MiB", hint="is this the right file?")
    data = _data(raw, source)
    try:
        return msgspec.convert({} if data is None else data, model)
    except msgspec.ValidationError as error:
        raise _explained(str(error), raw, source) from None


def _data(raw: bytes, source: str) -> Any:
    import yaml

    try:
        return yaml.load(raw, Loader=_loader(yaml))  # noqa: S506 - a SafeLoader that also refuses duplicate keys
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}, line {mark.line + 1}" if mark else source
        raise Invalid(f"{where}: {error.problem or error.context}", hint="correct the YAML there") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Invalid(f"{source}: not YAML: {str(error)[:200]}", hint="correct the file") from None


_LOADER: type | None = None


def _loader(yaml_module: Any) -> Any:
    """A safe loader (C where there is one) that refuses duplicate keys, which YAML forbids and PyYAML accepts."""
    global _LOADER
    if _LOADER is None:
        base = getattr(yaml_module, "CSafeLoader", yaml_module.SafeLoader)

        class Loader(base):  # type: ignore[misc,valid-type]  # the base is chosen at run time
            def construct_mapping(self, node: Any, deep: bool = False) -> Any:
                seen: set[Hashable] = set()
                for key_node, _ in node.value:
                    if key_node.tag == "tag:yaml.org,2002:merge":
                        continue
                    key = self.construct_object(key_node, deep=True)
                    if isinstance(key, Hashable) and key in seen:
                        raise yaml_module.constructor.ConstructorError(
                            None, None, f"key {key!r} is given twice", key_node.start_mark
                        )
                    if isinstance(key, Hashable):
                        seen.add(key)
                return super().construct_mapping(node, deep)

        _LOADER = Loader
    return _LOADER


def _explained(message: str, raw: bytes, source: str) -> Invalid:
    """msgspec's message with the line of the key it is about."""
    at = _AT.search(message)
    steps: list[str | int] = [_step(m) for m in _STEP.finditer(at[1])] if at else []
    text = _AT.sub("", message)
    if unknown := _UNKNOWN.search(message):
        steps.append(unknown[1])
        text = f"unknown key {unknown[1]!r}"
    key = ".".join("*" if step == "..." else str(step) for step in steps)
    line = _line_of(raw, steps)
    where = f"{source}, line {line}" if line else source
    about = f" (key {key})" if key else ""
    return Invalid(f"{where}: {text}{about}", hint="see docs/meta-framework.md for the keys and their types")


def _step(match: re.Match[str]) -> str | int:
    if match[1] is not None:
        return match[1]
    return int(match[2]) if match[2].isdigit() else match[2]


def _line_of(raw: bytes, steps: list[str | int]) -> int | None:
    import yaml

    # the loader that has read it: the two disagree about some texts
    node: yaml.Node | None = yaml.compose(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    line = node.start_mark.line + 1 if node is not None else None
    for step in steps:
        child = _child(node, step)
        if child is None:
            return line
        mark, node = child
        line = mark.line + 1
    return line


def _child(node: Any, step: str | int) -> tuple[Any, Any] | None:
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if step in ("...", key.value):
                return key.start_mark, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark, node.value[step]
    return None
