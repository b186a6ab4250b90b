"""Reading one YAML document into a model; a mistake is told with file, line and key."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import Invalid

if TYPE_CHECKING:
    import yaml

T = TypeVar("T")

_AT = re.compile(r" - at `(.*)`$")
_UNKNOWN = re.compile(r"unknown field `(.*?)`")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_MISFIT = (LookupError, AttributeError, ArithmeticError, TypeError)
"""What PyYAML raises of a tag that does not fit its text: `!!int ""`, `!!bool x`, `!!timestamp x`."""
ANY = "..."
"""msgspec's word for whichever key of a mapping."""


def load(path: Path, model: type[T]) -> T:
    """The document at `path` as `model`. Raises Invalid naming file, line and key."""
    try:
        with path.open("rb") as file:
            raw = file.read(document_bounds.SMALL.size + 1)  # of a file that has no end, no more
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}", hint=f"look at `ls -l {path}`") from error
    return parse(raw, model, source=str(path))


def parse(raw: bytes, model: type[T], *, source: str) -> T:
    """The YAML text `raw` as `model`; `source` is what error messages call it."""
    if len(raw) > document_bounds.SMALL.size:
        raise Invalid(f"{source} is larger than 1 MiB", hint="is this the right file?")
    data = _data(raw, source)
    data = {} if data is None else data
    try:
        return msgspec.convert(data, model)
    except msgspec.ValidationError as error:
        said = complaint(error, data, model)
        raise Invalid(
            f"{_place(raw, source, said.steps)}: {said}", hint="see docs/meta-framework.md for the keys and their types"
        ) from None


def _data(raw: bytes, source: str) -> Any:
    import yaml

    try:
        document_bounds.check_yaml(raw)
        return yaml.load(raw, Loader=_loader(yaml))  # noqa: S506 - a SafeLoader that also refuses duplicate keys
    except document_bounds.LimitExceeded as error:
        where = f"{source}, line {error.line}" if error.line else source
        raise Invalid(f"{where}: {error}", hint="make the document smaller; is this the right file?") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}, line {mark.line + 1}" if mark else source
        raise Invalid(f"{where}: {error.problem or error.context}", hint="correct the YAML there") from None
    except (yaml.YAMLError, ValueError, RecursionError, *_MISFIT) as error:
        raise Invalid(f"{source}: not YAML: {str(error)[:200]}", hint="correct the file") from None


_LOADER: type | None = None


def _loader(yaml_module: Any) -> Any:
    """A safe loader (C where there is one) that refuses duplicate keys, which YAML forbids and PyYAML accepts, and
    leaves dates as the texts they are."""
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

        Loader.yaml_implicit_resolvers = {
            first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in base.yaml_implicit_resolvers.items()
        }
        _LOADER = Loader
    return _LOADER


class DocumentMistake(NamedTuple):
    """What is wrong with a document, and the keys that lead there."""

    text: str
    steps: tuple[str | int, ...]

    def __str__(self) -> str:
        key = ".".join(map(str, self.steps))
        return f"{self.text} (key {key})" if key else self.text


def complaint(error: msgspec.ValidationError, data: Any, model: Any) -> DocumentMistake:
    """msgspec's message about `data`, which is no `model`, with the whole way to the key that it is about."""
    message = str(error)
    at = _AT.search(message)
    steps: list[str | int] = [_step(m) for m in _STEP.finditer(at[1])] if at else []
    for n, step in enumerate(steps):
        if step == ANY:
            steps[n] = _guilty(message, data, model, steps[:n])
    text = _AT.sub("", message)
    if unknown := _UNKNOWN.search(message):
        steps.append(unknown[1])
        text = f"unknown key {unknown[1]!r}"
    return DocumentMistake(text, tuple(steps))


def _guilty(message: str, data: Any, model: Any, above: list[str | int]) -> str | int:
    """Which key of the mapping below `above` a message is about, for msgspec says only `...`: the first one that gives
    the same message without the others."""
    mapping = data
    for step in above:
        mapping = mapping[step]
    for key in mapping:
        try:
            msgspec.convert(_with(data, above, {key: mapping[key]}), model)
        except msgspec.ValidationError as error:
            if str(error) == message:
                return str(key)
    return ANY


def _with(data: Any, steps: list[str | int], value: Any) -> Any:
    """`data` with `value` at the end of `steps`."""
    if not steps:
        return value
    changed: Any = list(data) if isinstance(data, list) else dict(data)
    changed[steps[0]] = _with(data[steps[0]], steps[1:], value)
    return changed


def place_of(path: Path, steps: Sequence[str | int]) -> str:
    """The file and the line of a key, as errors call it."""
    try:
        return _place(path.read_bytes(), str(path), steps)
    except OSError:
        return str(path)


def _place(raw: bytes, source: str, steps: Sequence[str | int]) -> str:
    line = _line_of(raw, steps)
    return f"{source}, line {line}" if line else source


def with_line(error: Invalid, path: Path, *, source: str) -> Invalid:
    """An error that says `SOURCE: KEY ...`, with the file at `path` and the line of the key."""
    told = error.message.removeprefix(f"{source}: ")
    if told == error.message:
        return error
    return Invalid(f"{place_of(path, _steps_to(path, told.split(maxsplit=1)[0]))}: {told}", hint=error.hint)


def _steps_to(path: Path, dotted: str) -> list[str | int]:
    """The keys of `a.b[0].c`, where a key may have dots itself: the longest that is there."""
    steps: list[str | int] = []
    try:
        found = _data(path.read_bytes(), str(path))
    except (OSError, Invalid):
        return steps
    rest = dotted.rstrip(":,")
    while rest:
        if isinstance(found, list):
            number, _, after = rest.removeprefix("[").partition("]")
            if not number.isdecimal() or int(number) >= len(found):
                break
            steps.append(int(number))
            found, rest = found[int(number)], after.removeprefix(".")
            continue
        if not isinstance(found, dict):
            break
        fits = [key for key in found if isinstance(key, str) and _begins(rest, key)]
        if not fits:
            break
        key = max(fits, key=len)
        steps.append(key)
        found, rest = found[key], rest[len(key) :].removeprefix(".")
    return steps


def _begins(dotted: str, key: str) -> bool:
    return dotted.startswith(key) and dotted[len(key) : len(key) + 1] in ("", ".", "[")


def _step(match: re.Match[str]) -> str | int:
    if match[1] is not None:
        return match[1]
    return int(match[2]) if match[2].isdigit() else match[2]


def _line_of(raw: bytes, steps: Sequence[str | int]) -> int | None:
    import yaml

    try:
        document_bounds.check_yaml(raw)
    except document_bounds.LimitExceeded:
        return None  # another one has been put there since
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
            if step in (ANY, key.value):
                return key.start_mark, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark, node.value[step]
    return None
