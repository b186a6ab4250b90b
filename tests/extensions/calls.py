"""Asking an extension by hand: specs that are resolved, and commands with their streams kept."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sandboxer.extensions.base import CanExec, Context, Exec, Spec
from sandboxer.hosts.base import Streams
from sandboxer.hosts.local import LocalHost
from sandboxer.models import Handle, HostSettings
from sandboxer.names import (
    LABEL_EXPIRES,
    LABEL_EXTENSION,
    LABEL_ID,
    LABEL_INSTALL,
    LABEL_PROFILE,
    new_id,
    resource_name,
)
from sandboxer.secrets import Secret
from sandboxer.timing import Deadline

SECONDS = 30.0


def archive_of(size: int) -> io.BytesIO:
    """A tar stream with one file of so many bytes, called `file`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = size
        tar.addfile(member, io.BytesIO(b"x" * size))
    packed.seek(0)
    return packed


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


def asking(
    *,
    install: str,
    endpoints: Mapping[str, str],
    secrets: Mapping[str, Secret],
    seconds: float | None = SECONDS,
    deadline: Deadline | None = None,
    save: Callable[[Handle], None] = lambda _handle: None,
    progress: Callable[[str, str], None] = lambda _phase, _text: None,
) -> Context:
    """A context as the core makes one for a backend that has no hosts. `seconds` until its end, None for
    none; or the `deadline` itself."""
    return Context(
        host=LocalHost("local", HostSettings()),
        install=install,
        deadline=deadline or Deadline(seconds),
        save=save,
        progress=progress,
        endpoints=endpoints,
        secrets=secrets,
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
