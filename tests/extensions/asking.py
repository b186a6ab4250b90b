"""Asking an extension by hand: specs that are resolved, and commands with their streams kept."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from sandboxer.extensions.base import CanExec, Context, Exec, Spec
from sandboxer.hosts.base import Streams
from sandboxer.models import Handle
from sandboxer.names import (
    LABEL_EXPIRES,
    LABEL_EXTENSION,
    LABEL_ID,
    LABEL_INSTALL,
    LABEL_PROFILE,
    new_id,
    resource_name,
)


def resolved(
    extension: str,
    profile: str,
    model: type[Any],
    options: Mapping[str, Any],
    *,
    install: str,
    sandbox_id: str | None = None,
    ttl: float | None = 3600.0,
) -> Spec:
    """A resolved spec; `ttl` in seconds, None never ends."""
    name = sandbox_id or new_id()
    expires = None if ttl is None else time.time() + ttl
    return Spec(
        sandbox_id=name,
        resource=resource_name(name),
        profile=profile,
        labels={
            LABEL_ID: name,
            LABEL_INSTALL: install,
            LABEL_EXPIRES: "never" if expires is None else str(int(expires)),
            LABEL_PROFILE: profile,
            LABEL_EXTENSION: extension,
        },
        inputs={},
        options=msgspec.convert(dict(options), model),
        expires_at=expires,
    )


def ran(
    extension: CanExec, handle: Handle, context: Context, argv: tuple[str, ...], *, stdin: Any = None, **more: Any
) -> tuple[int, bytes, bytes]:
    """Run a command inside: exit code, stdout, stderr. `stdin` are bytes, or a stream."""
    out, err = bytearray(), bytearray()
    source = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
    streams = Streams(stdin=source, stdout=out.extend, stderr=err.extend)
    code = extension.exec(handle, Exec(argv=argv, **more), streams, context)
    return code, bytes(out), bytes(err)
