"""The self-check from end to end: plant, ask inside, clean up, compare, report."""

from __future__ import annotations

import contextlib
import os
from binascii import crc32
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from sandboxer.errors import BackendError, SandboxerError, Unsupported
from sandboxer.extensions.base import CanCopy, CanExec, Context, SandboxExtension
from sandboxer.models import Handle, Ready
from sandboxer.selfcheck import claims, host_marks, remote_probe
from sandboxer.selfcheck.findings import comparable, findings
from sandboxer.selfcheck.isolation_report import IsolationReport
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    import socket

CHECK_SECONDS: Final = 60.0
"""How long the whole self-check may take, if the command's own deadline leaves it that long."""
_CLEAN_UP_SECONDS: Final = 10.0


def self_check(
    extension: SandboxExtension, handle: Handle, ready: Ready, ctx: Context, *, version: str
) -> dict[str, Any]:
    """See `sandboxer.selfcheck.run`."""
    if not (isinstance(extension, CanExec) and isinstance(extension, CanCopy)):
        raise Unsupported(
            f"{type(extension).__name__} cannot check itself: it lacks exec or copy",
            hint="set `self_check: false` in the profile, or choose an extension that can do both",
        )
    ctx = replace(ctx, deadline=ctx.deadline.shorter(CHECK_SECONDS))
    host = ctx.host
    where = host_marks.ground(host.work_dir(ctx.deadline), ready.reachability.remote_dir)
    listener = _listen() if host.address().kind == "local" else None
    try:
        known = host_marks.begin(host, where, ctx.deadline)
        port = None if listener is None else listener.getsockname()[1]
        targets = {**known.targets(listener=port), "workspace": remote_probe.WORKSPACE}
        remote_probe.put(extension, handle, ctx)
        answer = remote_probe.ask(extension, handle, targets, ctx)
        called = None if listener is None else _was_called(listener, targets["nonce"])
    except BaseException:
        # The error that stopped us is the one to tell; a file that stays is removed with the sandbox, or by age.
        with contextlib.suppress(SandboxerError):
            host_marks.end(host, where, Deadline(_CLEAN_UP_SECONDS))
        raise
    finally:
        if listener is not None:
            listener.close()
    owners = host_marks.end(host, where, Deadline(_CLEAN_UP_SECONDS))
    ours = {n: crc32((targets["nonce"] + v).encode("utf-8", "surrogateescape")) for n, v in _ours().items()}
    measured = findings(answer, known, owners=owners, called=called, environment=ours)
    if measured.sandboxer != version:
        raise BackendError(
            f"sandboxer {version} was put inside, but {measured.sandboxer} answered",
            hint="the workspace holds another copy; create a fresh sandbox",
        )
    return _judged(ready, measured, known.telemetry, extension=extension, version=version)


def _judged(
    ready: Ready, measured: IsolationReport, telemetry: Mapping[str, Any], *, extension: SandboxExtension, version: str
) -> dict[str, Any]:
    """The report; raises BackendError with it when a claim is contradicted."""
    verdicts = claims.checks(ready.isolation, measured)
    wrong = [check for check in verdicts if check.verdict == "contradicted"]
    contradictions = [{"claim": check.claim, "measured": check.measured} for check in wrong]
    report = {
        "version": version,
        "host": dict(telemetry),
        "isolation": {
            "claimed": msgspec.to_builtins(ready.isolation),
            "measured": msgspec.to_builtins(measured),
            "holds": [check.claim for check in verdicts if check.verdict == "holds"],
            "unknown": [check.claim for check in verdicts if check.verdict == "unknown"],
            "contradictions": contradictions,
        },
    }
    if not wrong:
        return report
    said = "; ".join(f"{check.claim!r} (measured: {check.measured[:200]})" for check in wrong)
    raise BackendError(
        f"the sandbox is not isolated as {type(extension).__name__} claims: {said}",
        hint="do not run anything in it that you don't trust; `sandboxer doctor` shows what the host lacks",
        retryable=False,
        details={"contradictions": contradictions, "report": report},
    )


def _ours() -> dict[str, str]:
    return comparable(os.environ)


def _listen() -> socket.socket | None:
    """A port on this machine's loopback that only a process in our network could call. Nobody has to accept: the
    kernel completes the connection, and keeps what was sent."""
    import socket

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
    except OSError:
        listener.close()
        return None
    return listener


def _was_called(listener: socket.socket, nonce: str) -> bool:
    """Whether a caller left the nonce: any program of this machine may call a port by chance."""
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:
            return False
        with caller:
            caller.setblocking(False)
            with contextlib.suppress(OSError):
                if caller.recv(len(nonce)) == nonce.encode():
                    return True
