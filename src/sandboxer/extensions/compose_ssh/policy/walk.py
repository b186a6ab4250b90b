"""Take a document apart along the key table: what is not in the table cannot get through."""

from __future__ import annotations

from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader import Path
from sandboxer.extensions.compose_ssh.policy.checks import wrong
from sandboxer.extensions.compose_ssh.policy.gate import LEFT_OUT, Gate
from sandboxer.extensions.compose_ssh.policy.key_table import Node, Treatment, key_tree
from sandboxer.extensions.compose_ssh.policy.keys_project import KEYS
from sandboxer.extensions.compose_ssh.policy.verdict import ComposeProgram

ROOT: Final = key_tree(KEYS)
MAX_ENTRIES: Final = 5_000
"""Of one mapping or list: the loader bounds the whole."""
_UNKNOWN: Final = "whatever the engine takes it for: nobody has looked at this key yet"
_EMPTY: Final = "an image that nobody can name: the service says nothing"
_EXTENSION: Final = "whatever podman-compose takes it for: it reads orders to podman from such keys"


def walk(gate: Gate) -> dict[str, Any]:
    """The document with only what the table lets through; violations and notes go to the gate."""
    document = _take(gate, ROOT, (), gate.project.document)
    return document if isinstance(document, dict) else {}


def _take(gate: Gate, node: Node, path: Path, value: Any) -> Any:
    if node.key is not None and node.key.take is not None:
        return _judged(gate, node, path, value)
    if value is None and len(path) == 2 and path[0] == "services":
        return gate.refuse(path, _EMPTY)
    if value is None:
        # volumes: {data: } and services.web.networks: {back: } stand for their defaults
        return None if (path and _names_things(path[:-1]) and path[0] != "services") or _joined(path) else LEFT_OUT
    if node.item is not None:
        return _items(gate, node.item, path, value)
    if not isinstance(value, dict):
        return wrong(gate, path, "a mapping")
    if len(value) > MAX_ENTRIES:
        return gate.refuse(path, f"the memory of whoever reads it: at most {MAX_ENTRIES} entries")
    kept: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            wrong(gate, (*path, str(key)), "a name")
            continue
        if "$" in key:
            # podman-compose puts variables into keys too
            gate.refuse((*path, key), "variables of the host, which podman-compose puts into keys too")
            continue
        inner = node.keys.get(key) or node.any
        if key.startswith("x-") and key not in node.keys and not _names_things(path):
            if key.startswith("x-podman"):
                gate.refuse((*path, key), _EXTENSION)
            continue
        if inner is None:
            gate.refuse((*path, key), _UNKNOWN)
            continue
        taken = _take(gate, inner, (*path, key), item)
        if taken is not LEFT_OUT:
            kept[key] = taken
    return kept


def _names_things(path: Path) -> bool:
    """Whether keys at `path` are names that the file chose, so that `x-` says nothing."""
    return len(path) == 1 or (len(path) == 3 and path[2] in ("depends_on", "networks", "ulimits"))


def _joined(path: Path) -> bool:
    return len(path) == 4 and path[0] == "services" and path[2] == "networks"


def _items(gate: Gate, item: Node, path: Path, value: Any) -> Any:
    if not isinstance(value, list):
        return wrong(gate, path, "a list")
    if len(value) > MAX_ENTRIES:
        return gate.refuse(path, f"the memory of whoever reads it: at most {MAX_ENTRIES} entries")
    taken = [_take(gate, item, (*path, index), one) for index, one in enumerate(value)]
    return [one for one in taken if one is not LEFT_OUT]


def _judged(gate: Gate, node: Node, path: Path, value: Any) -> Any:
    key, take = node.key, node.key.take if node.key else None
    if key is None or take is None:
        return LEFT_OUT
    taken = take(gate, path, value) if value is not None or _may_be_null(path) else LEFT_OUT
    if taken is LEFT_OUT or key.decision is Treatment.LEFT_OUT:
        return LEFT_OUT
    support = {ComposeProgram.V1: key.v1, ComposeProgram.PODMAN: key.podman}.get(gate.program, "yes")
    if support == "ignored":
        if path in gate.project.origins:  # else the file does not say it: the loader filled it in
            gate.note(f"{gate.program} does not know `{key.path.removeprefix('services.*.')}`: it is left out")
        return LEFT_OUT
    if support == "no" and _says_something(taken):
        gate.lacks(path)  # and judged with the rest all the same: a refusal says more
    return taken


def _may_be_null(path: Path) -> bool:
    return path[-1] in ("command", "entrypoint")


def _says_something(value: Any) -> bool:
    return value is not False and value not in (None, "", [], {}, "private", "default")
