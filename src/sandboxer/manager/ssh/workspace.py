"""Enter a sandbox the way of a consumer: by its reachability, outside of the boundary."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from sandboxer.errors import BackendError, Conflict, Invalid, Unsupported
from sandboxer.hosts.base import Command, Streams
from sandboxer.manager.exec import leased
from sandboxer.manager.services import Services
from sandboxer.models import HostSettings, Reachability, Sandbox
from sandboxer.routing import LOCAL
from sandboxer.timing import Deadline

_LOGIN = 'exec "${SHELL:-/bin/sh}" -l'


def enter(services: Services, sandbox_id: str, words: Sequence[str], streams: Streams, *, tty: bool) -> int:
    """Run `words`, or a shell, in the sandbox's workspace under a lease; the exit code, 255 where ssh itself failed."""
    with leased(services, sandbox_id, holder="ssh") as (record, _handle):
        reached = _reached(record)
        settings = services.settings.hosts.get(record.host or LOCAL, HostSettings())
        argv = consumer_argv(reached, words, settings, tty=tty)
        local = reached.kind == "local"
        if local and not os.access(reached.remote_dir or "", os.X_OK):  # else it would be the command that cannot run
            raise BackendError(
                f"there is no workspace at {reached.remote_dir} that can be entered",
                hint="run `sandboxer reconcile --apply`, or destroy it",
            )
        command = Command(argv=argv, cwd=reached.remote_dir if local else None, tty=tty)
        return services.open_host(LOCAL).stream(command, streams, Deadline(None))


def _reached(record: Sandbox) -> Reachability:
    reached = record.reachability
    if reached is None:
        raise Conflict(f"sandbox {record.id} tells no way in", hint=f"run `sandboxer get {record.id} --refresh`")
    if reached.kind == "api" or reached.remote_dir is None:
        raise Unsupported(
            f"{record.extension} is reached by its provider's API, not by SSH",
            hint=f"run `sandboxer shell {record.id}`",
        )
    return reached


def consumer_argv(reached: Reachability, words: Sequence[str], settings: HostSettings, *, tty: bool) -> list[str]:
    """The words that a consumer would type. `ssh` joins what follows the host and gives it to a shell: each of them is
    quoted, so that they arrive as they are. Unknown and changed host keys are refused."""
    if any("\0" in word for word in words):
        raise Invalid("a NUL character cannot be passed to a program", hint="remove it")
    if reached.kind == "local":
        return list(words) or ["/bin/sh", "-c", _LOGIN]  # not by a PATH that may lead to where one is: inside
    inside = f"cd -- {shlex.quote(reached.remote_dir or '.')} || exit 125; "
    inside += f"exec {shlex.join(words)}" if words else _LOGIN
    options = ["-o", "StrictHostKeyChecking=yes", "-t" if tty else "-T"]
    if reached.port is not None:
        options += ["-p", str(reached.port)]
    if settings.identity is not None:
        options += ["-i", settings.identity]
    if settings.certificate is not None:
        options += ["-o", f"CertificateFile={settings.certificate}"]
    if settings.known_hosts is not None:
        options += ["-o", f"UserKnownHostsFile={settings.known_hosts}"]
    if settings.proxy_jump is not None:
        options += ["-J", settings.proxy_jump]
    if reached.user is not None:
        options += ["-l", reached.user]
    return ["ssh", *options, "--", reached.host or "", inside]
