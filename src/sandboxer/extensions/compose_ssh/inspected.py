"""What an engine shows of a whole stack: the answer of the `describe` script. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sandboxer.errors import BackendError

Item = Mapping[str, Any]


class StackInspection(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine shows of a stack: `inspect` of its containers, of their volumes and networks (by name), its own
    `info`, and where the sources of bind mounts really lead."""

    containers: Sequence[Item]
    volumes: Mapping[str, Item] = {}
    networks: Mapping[str, Item] = {}
    info: Item = {}
    real: Mapping[str, str] = {}


def parse_inspection(text: str) -> StackInspection:
    """The answer of the `describe` script. Raises BackendError when it is cut off or no such answer."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.split("\n"):
        if line.startswith("== "):
            current = sections.setdefault(line[3:], [])
        else:
            current.append(line)
    try:
        if "end" not in sections:
            raise ValueError
        found = {name: json.loads("\n".join(sections[name])) for name in ("containers", "volumes", "networks", "info")}
        paths = sections["paths"]
        return StackInspection(
            containers=found["containers"],
            volumes={str(item["Name"]): item for item in found["volumes"]},
            networks={str(item.get("Name") or item["name"]): item for item in found["networks"]},
            info=found["info"],
            real=dict(zip(paths[::2], paths[1::2], strict=False)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(
            f"what the container engine shows of the stack makes no sense: {text[:200]!r}",
            hint="run the engine's `inspect` on the host",
            outcome="unknown",
        ) from error
