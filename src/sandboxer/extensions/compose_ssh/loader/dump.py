"""A resolved document as a file that docker compose v2, docker-compose v1 and podman-compose read alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dump(document: Mapping[str, Any]) -> bytes:
    """The document as JSON, which is YAML to every reader; a `$` in it is doubled, keys are in order."""
    return (json.dumps(_escaped(document), indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value
