"""Copy files into and out of the containers of a stack, and tell what is at a path."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Sequence
from typing import BinaryIO

from sandboxer.errors import Conflict, Invalid, NotFound, Unsupported
from sandboxer.extensions.base import Context, LeftOut, PathKind
from sandboxer.extensions.compose_ssh import archives, argv, client, engine, errors, scripts
from sandboxer.extensions.compose_ssh.handle import ComposeHandleData, from_handle
from sandboxer.extensions.shell import files
from sandboxer.hosts.base import Result, Sink
from sandboxer.models import Handle

_MOST_LINKS = 40


class ComposeFiles:
    """Files of a service's container. `knows_holes` stays no: engines understand holes, and write them as zeros,
    so that a few bytes would fill the host's disk."""

    def path_kind(self, handle: Handle, path: str, ctx: Context, *, service: str | None = None) -> PathKind:
        """By the first entry of the path's archive: a container needs no program for it."""
        sandbox = from_handle(handle)
        container = client.container_of(sandbox, service, ctx, running=False)
        return _kind(sandbox, container, _absolute(container, path), ctx)

    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        """Unpack by `cp -`. Engines unpack only into a directory that exists: so into the nearest one that does, with
        the rest of the path put before each name. Files belong to root (docker) or the container's user (podman)."""
        sandbox = from_handle(handle)
        container = client.container_of(sandbox, service, ctx, running=False)
        target = base = _absolute(container, directory)
        if _out_of_reach(sandbox, container, target, ctx):
            run = _run_inside(sandbox, container, target, ctx)
            if files.path_kind(run, target) == "file":
                raise Conflict(f"{target!r} inside is not a directory", hint="choose another destination")
            with archives.prefixed(archive, "") as data:
                files.put_archive(run, target, data, hint="is a file in its way, or too little memory left?")
            return
        while (kind := _kind_by_archive(sandbox, container, base, ctx)) != "directory":
            if kind == "file":
                raise Conflict(f"{base!r} inside is not a directory", hint="choose another destination")
            base = base.rpartition("/")[0] or "/"
        prefix = target[len(base) :].strip("/")
        with archives.prefixed(archive, prefix) as data:
            result = client.stream(argv.unpack(sandbox, container.id, base), ctx, stdin=data)
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
        container = client.container_of(sandbox, service, ctx, running=False)
        absolute = _absolute(container, path)
        with archives.renamed(absolute.rpartition("/")[2], sink) as feed:
            if _out_of_reach(sandbox, container, absolute, ctx):
                return files.get_archive(_run_inside(sandbox, container, absolute, ctx), absolute, feed)
            skipped = archives.Skipped()
            result = client.stream(argv.pack(sandbox, container.id, absolute), ctx, stdout=feed, stderr=skipped.warned)
            if result.code and errors.says_absent(result):
                raise NotFound(f"there is no {path!r} inside", hint="see what is there with `sandboxer exec ID -- ls`")
            if result.code and not errors.socket(result):
                raise errors.translate(result, doing=f"copying {path!r}", engine=argv.engine_of(sandbox))
        if container.running and not container.podman:
            words = argv.script_inside(sandbox, container.id, scripts.SOCKETS, absolute)
            client.stream(words, ctx, stdin=io.BytesIO(), stdout=skipped.listed)
        return skipped.left_out


def _kind(sandbox: ComposeHandleData, container: engine.Container, path: str, ctx: Context) -> PathKind:
    if _out_of_reach(sandbox, container, path, ctx):
        return files.path_kind(_run_inside(sandbox, container, path, ctx), path)
    return _kind_by_archive(sandbox, container, path, ctx)


def _kind_by_archive(sandbox: ComposeHandleData, container: engine.Container, path: str, ctx: Context) -> PathKind:
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


def _out_of_reach(sandbox: ComposeHandleData, container: engine.Container, path: str, ctx: Context) -> bool:
    """Whether the engine's `cp` does not see `path`, but a command inside does. Raises Conflict when nothing does,
    because the container has ended."""
    place = container.out_of_reach(path)
    if place is None and not container.podman:  # podman's fails there, docker's says 0
        place = container.out_of_reach(_real(sandbox, container, path, ctx))
    if place is not None and not container.running:
        raise Conflict(
            f"{path!r} is in memory (a mount at {place}), and there only while service {container.service!r} runs",
            hint="see why it does not with `sandboxer logs ID`",
        )
    return place is not None


def _real(sandbox: ComposeHandleData, container: engine.Container, path: str, ctx: Context) -> str:
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


def _run_inside(sandbox: ComposeHandleData, container: engine.Container, path: str, ctx: Context) -> files.Run:
    """Runs words in a container as its root, to whom what is copied belongs otherwise too."""

    def run(
        words: Sequence[str],
        *,
        stdin: BinaryIO | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> Result:
        command = [argv.engine_of(sandbox), "exec", "-i", "-u", "0", container.id, *words]
        result = client.stream(command, ctx, stdin=stdin or io.BytesIO(), stdout=stdout, stderr=stderr)
        if result.code in (126, 127, files.NO_TAR):
            raise Unsupported(
                f"{path!r} is in memory, where files are copied by the container's own `sh` and `tar`: it has none",
                hint="copy to a directory that is on disk, or to a volume",
            )
        return result

    return run


def _absolute(container: engine.Container, path: str) -> str:
    """A path inside as an absolute one, without a trailing `/`."""
    if "\0" in path:
        raise Invalid("the path holds a NUL", hint="give another path")
    argv.check_text([path], what="the path")
    joined = path if path.startswith("/") else f"{container.working_dir.rstrip('/')}/{path}"
    parts: list[str] = []
    for part in joined.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
