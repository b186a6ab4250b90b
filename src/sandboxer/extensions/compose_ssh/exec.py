"""Inside the containers: commands, files, logs."""

from __future__ import annotations

import io
import posixpath
import secrets
from collections.abc import Callable, Sequence
from typing import BinaryIO

from sandboxer.errors import BackendError, Conflict, Invalid, NotFound, SandboxerError, Timeout, Unsupported
from sandboxer.extensions.base import Context, Exec, LeftOut, PathKind
from sandboxer.extensions.compose_ssh import archives, argv, engine, environment, errors, scripts
from sandboxer.extensions.compose_ssh.answers import ExecOutput
from sandboxer.extensions.compose_ssh.options import ComposeHandleData, from_handle
from sandboxer.extensions.shell import files
from sandboxer.hosts.base import Command, Result, Sink, Streams
from sandboxer.models import Handle
from sandboxer.timing import Deadline

MARK = "SANDBOXER_EXEC"
"""A variable of each command inside: its value finds the command and its children again. Part of `scripts.KILL`."""
KILL_SECONDS = 15.0
"""Time for ending what a command left inside a container, on top of a deadline that has passed."""
ANSWER_SECONDS = 2.0
"""Time for the host to show that it is there at all, before that (promise 22: back within the deadline + 5 s)."""


_MOST_LINKS = 40


class ComposeExec:
    """The part of ext.compose-ssh that reaches into a sandbox that is there."""

    def containers(
        self, sandbox: ComposeHandleData, ctx: Context, *, checks: Sequence[tuple[str, float]] = ()
    ) -> list[engine.Container]:
        """The project's containers as the engine shows them. Raises BackendError, Unavailable, Denied."""
        return engine.parse_containers(self.looked(argv.look(sandbox, checks), sandbox, ctx))

    def looked(self, words: list[str], sandbox: ComposeHandleData, ctx: Context) -> str:
        """What a look at the engine says; a container that went between listing and looking makes it fail: then it
        looks again."""
        for attempt in range(3):
            with errors.explain_timeout(
                "asking the container engine", engine=argv.engine_of(sandbox), host=ctx.host.name
            ):
                result = ctx.host.run(words, ctx.deadline.shorter(60))
            if result.code == 0:
                return result.stdout.decode("utf-8", "replace")
            if attempt == 2 or not errors.says_vanished(result):
                break
        raise errors.translate(result, doing="asking the container engine", engine=argv.engine_of(sandbox))

    def _container(
        self, sandbox: ComposeHandleData, service: str | None, ctx: Context, *, running: bool
    ) -> engine.Container:
        containers = self.containers(sandbox, ctx)
        wanted = service or sandbox.main or next((c.service for c in containers), None)
        own = [container for container in containers if container.service == wanted]
        if not own:
            names = ", ".join(sorted({container.service for container in containers})) or "none at all"
            raise NotFound(f"there is no service {wanted!r} in this sandbox", hint=f"it has: {names}")
        up = next((container for container in own if container.running), None)
        if running and up is None:
            raise Conflict(
                f"service {wanted!r} is not running ({own[0].status}, exit code {own[0].exit_code})",
                hint="see why with `sandboxer logs ID`, or choose another one with --service",
            )
        return up or own[0]

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        """Run a command in a service's container."""
        sandbox = from_handle(handle)
        mark = secrets.token_hex(12)
        passed = environment.split({**request.env, MARK: mark})
        if not request.argv or "\0" in "".join(request.argv):
            raise Invalid("the command is empty or holds a NUL", hint="give it behind --, like: -- ls -l")
        container = self._container(sandbox, request.service, ctx, running=True)
        words = argv.inside(sandbox, container.id, request.argv, cwd=request.cwd, tty=request.tty, passed=passed)
        env = {f"SANDBOXER_ENV_{index}": line for index, line in enumerate(passed.lines)}
        answer = ExecOutput(streams)
        command = Command(argv=words, env={**passed.by_name, **env}, tty=request.tty)
        try:
            code = ctx.host.stream(command, answer.streams, ctx.deadline)
        except Timeout as error:
            late = error.reworded(f"{request.argv[0]} did not end in time in service {container.service!r}")
            self._end_inside(sandbox, container.id, mark, ctx, late)
            late.message += ", and was ended"
            raise late from error
        except BaseException as error:  # also an interrupt: what runs inside does not end with the engine's client
            self._end_inside(sandbox, container.id, mark, ctx, error)
            raise
        return answer.finish(code)

    def _end_inside(
        self, sandbox: ComposeHandleData, container: str, mark: str, ctx: Context, error: BaseException
    ) -> None:
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

    def path_kind(self, handle: Handle, path: str, ctx: Context, *, service: str | None = None) -> PathKind:
        """By the first entry of the path's archive: a container needs no program for it."""
        sandbox = from_handle(handle)
        container = self._container(sandbox, service, ctx, running=False)
        return self._kind(sandbox, container, _absolute(container, path), ctx)

    def _kind(self, sandbox: ComposeHandleData, container: engine.Container, path: str, ctx: Context) -> PathKind:
        if self._out_of_reach(sandbox, container, path, ctx):
            return files.path_kind(self._run_inside(sandbox, container, path, ctx), path)
        return self._kind_by_archive(sandbox, container, path, ctx)

    def _kind_by_archive(
        self, sandbox: ComposeHandleData, container: engine.Container, path: str, ctx: Context
    ) -> PathKind:
        if path == "/":
            return "directory"
        words = argv.peek(sandbox, container.id, path)
        result = ctx.host.run(words, ctx.deadline)
        first = archives.first_member(result.stdout)
        if first is not None:
            return "directory" if first.isdir() else "file"
        if not (result.stdout.strip(b"\0") or result.stderr) or errors.socket(result):
            return "file"  # a socket, which docker packs as nothing, and podman not at all
        if errors.says_absent(result):
            return "absent"
        raise errors.translate(result, doing=f"looking at {path!r}", engine=argv.engine_of(sandbox))

    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        """Unpack by `cp -`. Engines unpack only into a directory that exists: so into the nearest one that does, with
        the rest of the path put before each name. Files belong to root (docker) or the container's user (podman)."""
        sandbox = from_handle(handle)
        container = self._container(sandbox, service, ctx, running=False)
        target = base = _absolute(container, directory)
        if self._out_of_reach(sandbox, container, target, ctx):
            run = self._run_inside(sandbox, container, target, ctx)
            if files.path_kind(run, target) == "file":
                raise Conflict(f"{target!r} inside is not a directory", hint="choose another destination")
            with archives.prefixed(archive, "") as data:
                files.put_archive(run, target, data, hint="is a file in its way, or too little memory left?")
            return
        while (kind := self._kind_by_archive(sandbox, container, base, ctx)) != "directory":
            if kind == "file":
                raise Conflict(f"{base!r} inside is not a directory", hint="choose another destination")
            base = base.rpartition("/")[0] or "/"
        prefix = target[len(base) :].strip("/")
        with archives.prefixed(archive, prefix) as data:
            result = self._stream(argv.unpack(sandbox, container.id, base), ctx, stdin=data)
        if result.code and errors.read_only(result):
            raise Conflict(
                f"{target!r} inside is on a read-only file system",
                hint="copy to a volume, or to a `tmpfs` of the service",
            )
        if result.code:
            raise errors.translate(result, doing=f"copying into {target!r}", engine=argv.engine_of(sandbox))

    def get_archive(
        self, handle: Handle, path: str, sink: Callable[[bytes], None], ctx: Context, *, service: str | None = None
    ) -> LeftOut | None:
        """Pack by `cp ... -`; links at the end of the path are followed."""
        sandbox = from_handle(handle)
        container = self._container(sandbox, service, ctx, running=False)
        absolute = _absolute(container, path)
        with archives.renamed(absolute.rpartition("/")[2], sink) as feed:
            if self._out_of_reach(sandbox, container, absolute, ctx):
                return files.get_archive(self._run_inside(sandbox, container, absolute, ctx), absolute, feed)
            skipped = archives.Skipped()
            result = self._stream(argv.pack(sandbox, container.id, absolute), ctx, stdout=feed, stderr=skipped.warned)
            if result.code and errors.says_absent(result):
                raise NotFound(f"there is no {path!r} inside", hint="see what is there with `sandboxer exec ID -- ls`")
            if result.code and not errors.socket(result):
                raise errors.translate(result, doing=f"copying {path!r}", engine=argv.engine_of(sandbox))
        if container.running and not container.podman:
            words = argv.script_inside(sandbox, container.id, scripts.SOCKETS, absolute)
            self._stream(words, ctx, stdin=io.BytesIO(), stdout=skipped.listed)
        return skipped.left_out

    def _out_of_reach(self, sandbox: ComposeHandleData, container: engine.Container, path: str, ctx: Context) -> bool:
        """Whether the engine's `cp` does not see `path`, but a command inside does. Raises Conflict when nothing does,
        because the container has ended."""
        place = container.out_of_reach(path)
        if place is None and not container.podman:  # podman's fails there, docker's says 0
            place = container.out_of_reach(self._real(sandbox, container, path, ctx))
        if place is not None and not container.running:
            raise Conflict(
                f"{path!r} is in memory (a mount at {place}), and there only while service {container.service!r} runs",
                hint="see why it does not with `sandboxer logs ID`",
            )
        return place is not None

    def _real(self, sandbox: ComposeHandleData, container: engine.Container, path: str, ctx: Context) -> str:
        """`path` without links: told by the container, or followed one by one where it cannot tell."""
        if container.running:
            words = argv.script_inside(sandbox, container.id, scripts.REAL_PATH, path)
            result = ctx.host.run(words, ctx.deadline)
            if result.code == 0 and result.stdout.startswith(b"/"):
                return posixpath.normpath(result.stdout.decode("utf-8", "surrogateescape").removesuffix("\n"))
        real, left, links = "", path.strip("/").split("/"), 0
        while left:
            here = f"{real}/{left.pop(0)}"
            result = ctx.host.run(argv.peek(sandbox, container.id, here, follow=False), ctx.deadline)
            entry = archives.first_member(result.stdout)
            if entry is None:
                return "/".join([here, *left])
            if not entry.issym() or links == _MOST_LINKS:
                real = here
                continue
            links += 1
            joined = posixpath.normpath(posixpath.join(real or "/", entry.linkname, *left))
            real, left = "", joined.strip("/").split("/")
        return real or "/"

    def _run_inside(
        self, sandbox: ComposeHandleData, container: engine.Container, path: str, ctx: Context
    ) -> files.Run:
        """Runs words in a container as its root, to whom what is copied belongs otherwise too."""

        def run(
            words: Sequence[str],
            *,
            stdin: BinaryIO | None = None,
            stdout: Sink | None = None,
            stderr: Sink | None = None,
        ) -> Result:
            command = [argv.engine_of(sandbox), "exec", "-i", "-u", "0", container.id, *words]
            result = self._stream(command, ctx, stdin=stdin or io.BytesIO(), stdout=stdout, stderr=stderr)
            if result.code in (126, 127, files.NO_TAR):
                raise Unsupported(
                    f"{path!r} is in memory, where files are copied by the container's own `sh` and `tar`: it has none",
                    hint="copy to a directory that is on disk, or to a volume",
                )
            return result

        return run

    def _stream(
        self,
        words: list[str],
        ctx: Context,
        *,
        stdin: BinaryIO | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> Result:
        said, complained = bytearray(), bytearray()

        def complain(data: bytes) -> None:
            complained.extend(data[: max(0, 65536 - len(complained))])
            if stderr is not None:
                stderr(data)

        sink = stdout or (lambda data: said.extend(data[: 65536 - len(said)]))
        streams = Streams(stdin=stdin, stdout=sink, stderr=complain)
        code = ctx.host.stream(Command(argv=words), streams, ctx.deadline)
        return Result(code, bytes(said), bytes(complained))

    def logs(
        self, handle: Handle, streams: Streams, ctx: Context, *, service: str | None, follow: bool, tail: int | None
    ) -> None:
        """The engine's logs; with several containers each line begins with its service's name."""
        sandbox = from_handle(handle)
        containers = self.containers(sandbox, ctx)
        chosen = [c for c in containers if service is None or c.service == service]
        if not chosen and service is not None:
            names = ", ".join(sorted({c.service for c in containers})) or "none at all"
            raise NotFound(f"there is no service {service!r} in this sandbox", hint=f"it has: {names}")
        if len(chosen) == 1:
            self._logs_of(argv.logs(sandbox, chosen[0].id, follow=follow, tail=tail), streams, sandbox, ctx)
        elif follow and chosen:
            pairs = [(_title(container, chosen), container.id) for container in chosen]
            self._logs_of(argv.follow(sandbox, pairs, tail=tail), streams, sandbox, ctx)
        else:
            for container in chosen:
                prefix = f"{_title(container, chosen)} | ".encode()
                out, err = archives.LinePrefixer(prefix, streams.stdout), archives.LinePrefixer(prefix, streams.stderr)
                words = argv.logs(sandbox, container.id, follow=False, tail=tail)
                self._logs_of(words, Streams(stdout=out.write, stderr=err.write), sandbox, ctx)
                out.finish()
                err.finish()

    def _logs_of(self, words: list[str], streams: Streams, sandbox: ComposeHandleData, ctx: Context) -> None:
        code = ctx.host.stream(Command(argv=words), streams, ctx.deadline)
        if code:
            raise BackendError(
                f"the container engine could not show the logs (exit code {code})",
                hint=f"try `{argv.engine_of(sandbox)} logs` on the host",
            )


def _absolute(container: engine.Container, path: str) -> str:
    """A path inside as an absolute one, without a trailing `/`."""
    if "\0" in path:
        raise Invalid("the path holds a NUL", hint="give another path")
    joined = path if path.startswith("/") else f"{container.working_dir.rstrip('/')}/{path}"
    parts: list[str] = []
    for part in joined.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _title(container: engine.Container, among: Sequence[engine.Container]) -> str:
    alone = sum(1 for other in among if other.service == container.service) == 1
    return container.service if alone else f"{container.service}-{container.number}"
