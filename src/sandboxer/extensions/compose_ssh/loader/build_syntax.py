"""Read the build of a service into its long form."""

from __future__ import annotations

import re
from typing import Any, Final

from sandboxer.extensions.compose_ssh.loader.nodes import Map, Seq
from sandboxer.extensions.compose_ssh.loader.schema import (
    ValueContext,
    environment,
    flag,
    labels,
    listed,
    pairs,
    record,
    size,
    text,
    texts,
)
from sandboxer.extensions.compose_ssh.loader.service_syntax import extra_hosts, mounted, path, ulimits

_REMOTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|git@|github\.com/|service:")


def _context(value: Any, spot: ValueContext) -> str:
    """A build context: a directory, or the address of something elsewhere."""
    found = text(value, spot)
    return found if _REMOTE.match(found) else spot.absolute(found)


def _additional_contexts(value: Any, spot: ValueContext) -> Map:
    return pairs(bare="", item=_context)(value, spot)  # type: ignore[no-any-return]


def _ssh(value: Any, spot: ValueContext) -> Seq:
    """The agents of a build: NAME, or NAME=PATH."""
    agents: Map = pairs(bare=None, item=path)(Seq().add(value, spot.origin) if isinstance(value, str) else value, spot)
    result = Seq()
    for name, key in agents.items():
        result.add(name if key is None else f"{name}={key}", agents.at.get(name))
    return result


_BUILD: Final = record(
    {
        "context": _context,
        "dockerfile": text,
        "dockerfile_inline": text,
        "args": environment,
        "ssh": _ssh,
        "labels": labels,
        "cache_from": texts,
        "cache_to": texts,
        "no_cache": flag,
        "additional_contexts": _additional_contexts,
        "network": text,
        "target": text,
        "shm_size": size,
        "extra_hosts": extra_hosts,
        "isolation": text,
        "privileged": flag,
        "secrets": listed(mounted("")),
        "tags": texts,
        "ulimits": ulimits,
        "platforms": texts,
        "pull": flag,
        "entitlements": texts,
    }
)


def build(value: Any, spot: ValueContext) -> Map:
    if isinstance(value, str):
        return Map().put("context", _context(value, spot), spot.origin)
    return _BUILD(value, spot)  # type: ignore[no-any-return]
