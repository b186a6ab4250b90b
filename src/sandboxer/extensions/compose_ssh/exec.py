"""Run commands in the containers of a stack."""

from __future__ import annotations

import re
import secrets
from typing import Final

from sandboxer.errors import Conflict, Invalid, SandboxerError, Timeout
from sandboxer.extensions.base import Context, Exec
from sandboxer.extensions.compose_ssh import argv, client, scripts
from sandboxer.extensions.compose_ssh.handle import ComposeHandleData, from_handle
from sandboxer.hosts.base import Command, Streams
from sandboxer.models import Handle
from sandboxer.timing import Deadline

MARK = "SANDBOXER_EXEC"
"""A variable of each command inside: its value finds the command and its children again. Part of `scripts.KILL`."""
KILL_SECONDS = 15.0
"""Time for ending what a command left inside a container, on top of a deadline that has passed."""
ANSWER_SECONDS = 2.0
"""Time for the host to show that it is there at all, before that (promise 22: back within the deadline + 5 s)."""
_DOCKER: Final = b"OCI runtime exec failed: "
"""Docker tells that a command could not be started on the command's own stdout."""
_PODMAN: Final = re.compile(rb"Error: (?:runc|crun|[a-z-]+): .*(?:exec|chdir).*\n?\Z", re.S)
_GONE: Final = re.compile(
    rb"(?:Error response from daemon: .*(?:is not running|No such container|is paused)"
    rb"|Error: can only create exec sessions on running containers|Error: no container with name or ID).*\n?\Z",
    re.S,
)
_KEPT: Final = 4096


class ComposeExec:
    """Commands in a service's container."""

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        """Run a command in a service's container."""
        sandbox = from_handle(handle)
        mark = secrets.token_hex(12)
        passed = argv.split_environment({**request.env, MARK: mark})
        if not request.argv or "\0" in "".join(request.argv):
            raise Invalid("the command is empty or holds a NUL", hint="give it behind --, like: -- ls -l")
        argv.check_text(request.argv, what="the command")
        argv.check_text(request.env.values(), what="the environment")
        argv.check_text([request.cwd or ""], what="the working directory")
        container = client.container_of(sandbox, request.service, ctx, running=True)
        words = argv.inside(sandbox, container.id, request.argv, cwd=request.cwd, tty=request.tty, passed=passed)
        env = {f"SANDBOXER_ENV_{index}": line for index, line in enumerate(passed.lines)}
        answer = ExecOutput(streams)
        command = Command(argv=words, env={**passed.by_name, **env}, tty=request.tty)
        try:
            code = ctx.host.stream(command, answer.streams, ctx.deadline)
        except Timeout as error:
            late = error.reworded(f"{request.argv[0]} did not end in time in service {container.service!r}")
            _end_inside(sandbox, container.id, mark, ctx, late)
            late.message += ", and was ended"
            raise late from error
        except BaseException as error:  # also an interrupt: what runs inside does not end with the engine's client
            _end_inside(sandbox, container.id, mark, ctx, error)
            raise
        return answer.finish(code)


def _end_inside(sandbox: ComposeHandleData, container: str, mark: str, ctx: Context, error: BaseException) -> None:
    try:
        ctx.host.run(["true"], Deadline(ANSWER_SECONDS))
        deadline = Deadline(KILL_SECONDS)
        # from the host, where a container needs no shell; from inside, where this user may not kill its processes
        result = ctx.host.run(argv.script(scripts.KILL, mark), deadline)
        if result.text.strip() in ("", "0"):
            ctx.host.run(argv.script_inside(sandbox, container, scripts.KILL, mark), deadline)
    except SandboxerError as second:
        if isinstance(error, Timeout):
            raise Timeout(
                f"{error.message}; and ending it inside the container failed: {second.message}",
                hint=error.hint,
                outcome="unknown",
            ) from error


class ExecOutput:
    """Stands between an engine's client and the caller's streams."""

    def __init__(self, streams: Streams) -> None:
        self._to = streams
        self._held: bytearray | None = bytearray()
        self._complaint = bytearray()
        self.streams = Streams(stdin=streams.stdin, stdout=self._stdout, stderr=self._stderr)

    def _stdout(self, data: bytes) -> None:
        """Pass on, but hold what may be the engine's own message."""
        if self._held is None:
            self._to.stdout(data)
            return
        self._held += data
        length = min(len(self._held), len(_DOCKER))
        if self._held[:length] != _DOCKER[:length] or len(self._held) > _KEPT:
            held, self._held = bytes(self._held), None
            self._to.stdout(held)

    def _stderr(self, data: bytes) -> None:
        self._complaint += data[: max(0, _KEPT - len(self._complaint))]
        self._to.stderr(data)

    def finish(self, code: int) -> int:
        """The command's exit code: 126 when it could not be executed, 127 when it was not found. Raises Conflict when
        the container ended before the command began."""
        held = bytes(self._held or b"")
        failed = code in (126, 127)
        if held and failed and held.startswith(_DOCKER):
            self._to.stderr(held)
        elif held:
            self._to.stdout(held)
        if code in (1, 125, 255) and _GONE.match(bytes(self._complaint)):
            raise Conflict(
                f"the container is not running: {self._complaint.decode('utf-8', 'replace').strip()[:300]}",
                hint="see why with `sandboxer logs ID`",
            )
        said = held if held.startswith(_DOCKER) else bytes(self._complaint)
        if not failed or not (said.startswith(_DOCKER) or _PODMAN.match(said)):
            return code
        if b"chdir to cwd" in said:
            return 126
        missing = b"executable file not found" in said or b"no such file or directory" in said
        return 127 if missing else 126
