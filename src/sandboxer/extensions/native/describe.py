"""Tell what there is of sandboxes on a host: one look, the inventory, and how one that runs is reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import BackendError, Conflict
from sandboxer.extensions.base import Context, Found, Presence, Status
from sandboxer.extensions.native import scripts
from sandboxer.extensions.native.client import CREATED, decode_marker
from sandboxer.extensions.native.handle import (
    UNGUARDED,
    NativeHandleData,
    SandboxPaths,
    from_handle,
    minimal,
    to_handle,
)
from sandboxer.models import Handle, Isolation, Reachability, Ready
from sandboxer.names import LABEL_EXPIRES, LABEL_INSTALL, sandbox_id_of

_STATUSES: Final = {
    "running": Status("running"),
    "stopped": Status("stopped"),
    "ended": Status("stopped", "it does not run, and the next command starts it again", ended_itself=True),
    "absent": Status("absent"),
}
"""What look.sh says of a sandbox that it can see."""


def ready(sandbox: NativeHandleData, ctx: Context) -> Ready:
    """How a sandbox that is up is reached, and how it is isolated."""
    address = ctx.host.address()
    return Ready(
        reachability=Reachability(
            kind="ssh" if address.kind == "ssh" else "local",
            host=address.host,
            port=address.port,
            user=address.user,
            remote_dir=sandbox.paths.workspace,
            command=address.command,
            host_key=address.host_key,
        ),
        isolation=Isolation(
            class_="namespace", network=sandbox.network, syscalls=sandbox.syscalls, notes=sandbox.notes
        ),
    )


def look(paths: SandboxPaths, ctx: Context) -> tuple[Status, dict[str, Any], NativeHandleData | None]:
    """Its status, its marker ({} when there is none) and what was remembered of it on the host.

    Raises the host's errors, and BackendError when it cannot know."""
    done = ctx.host.run(scripts.look(paths), ctx.deadline)
    lines = done.text.split("\n") if done.code == 0 else []
    presence = lines[0] if lines else ""
    marker = lines[1] if len(lines) > 1 else ""
    status = _STATUSES.get(presence)
    if status is not None:
        return status, decode_marker(marker), _saved_handle(lines[2] if len(lines) > 2 else "", paths)
    raise BackendError(
        f"whether {paths.directory} exists cannot be seen: {done.complaint}",
        hint=f"check the rights of {paths.work_dir}",
    )


def first_processes(places: Sequence[SandboxPaths], ctx: Context) -> list[list[int]]:
    """The first process of each sandbox that runs, by its place among `places`."""
    found: dict[tuple[str, str], list[int]] = {}
    for work_dir in {paths.work_dir for paths in places}:
        names = [paths.name for paths in places if paths.work_dir == work_dir]
        for line in ctx.host.run(scripts.roots(work_dir, names), ctx.deadline).text.splitlines():
            name, _, pid = line.partition(" ")
            if pid.isascii() and pid.isdigit():
                found[work_dir, name] = [int(pid)]
    return [found.get((paths.work_dir, paths.name), []) for paths in places]


def inventory(work_dir: str, ctx: Context) -> list[Found]:
    """All sandboxes of `ctx.install` below the work directory; raises when the look was not complete."""
    done = ctx.host.run(scripts.inventory(work_dir, ctx.install), ctx.deadline)
    if done.code != 0:
        raise BackendError(f"{work_dir} cannot be listed: {done.complaint}", hint=f"check the rights of {work_dir}")
    # a script that ended normally has told everything: it checks that it may read the directory before it starts
    records, tags = _records(done.stdout.decode("utf-8", "replace"))
    found: dict[str, Found] = {}
    for name, text, handle in records:
        sandbox_id = sandbox_id_of(name)
        if sandbox_id is None or not text:
            # nothing proves that it is ours. A creation or a removal that was killed between two steps can leave one:
            # its record is there (it is written before, and dropped after), and `find` sees the directory
            continue
        marker = decode_marker(text)
        if not marker:
            raise BackendError(
                f"the marker file of {work_dir}/{name} is damaged",
                hint="look at it; if the directory is nobody's, remove it by hand",
            )
        if marker.get(LABEL_INSTALL) != ctx.install:
            continue
        paths = SandboxPaths(work_dir, sandbox_id, ctx.install)
        sandbox = _saved_handle(handle, paths) or minimal(paths)
        found[sandbox_id] = Found(
            sandbox_id=sandbox_id,
            handle=to_handle(sandbox),
            labels={key: str(value) for key, value in marker.items() if key.startswith("sandboxer.")},
            created_at=_number(marker.get(CREATED)),
            expires_at=_number(marker.get(LABEL_EXPIRES)),
            detail=f"{work_dir}/{name}",
        )
    for tag in tags:
        sandbox_id = sandbox_id_of(tag.partition(".")[0])
        if sandbox_id is not None and sandbox_id not in found:
            paths = SandboxPaths(work_dir, sandbox_id, ctx.install)
            found[sandbox_id] = Found(
                sandbox_id=sandbox_id, handle=to_handle(minimal(paths)), detail="processes without a directory"
            )
    return list(found.values())


def running(paths: SandboxPaths, ctx: Context) -> Presence:
    """The presence of a sandbox that has just been started."""
    if ctx.host.address().kind == "local" and _runs_here(paths, ctx):
        return "running"
    return look(paths, ctx)[0].presence


def _runs_here(paths: SandboxPaths, ctx: Context) -> bool:
    """What `recorded` of host/common.sh tells, on this machine without starting a process."""

    def read(path: str) -> str:
        return (ctx.host.read_file(path, ctx.deadline, limit=65536) or b"").decode("utf-8", "replace")

    boot = read("/proc/sys/kernel/random/boot_id").strip()
    alive = set()
    for line in read(paths.path("run/holder")).splitlines():
        what, _, rest = line.partition(" ")
        pid, _, rest = rest.partition(" ")
        fields = read(f"/proc/{pid}/stat").rpartition(") ")[2].split() if pid.isdigit() else []
        if len(fields) > 19 and fields[0] not in ("Z", "X") and rest == f"{fields[19]} {boot}":
            alive.add(what)
    return {"monitor", "child", "up"} <= alive


def find(paths: SandboxPaths, ctx: Context) -> NativeHandleData | None:
    """Whatever there is of one sandbox, or None when it is certain that there is nothing of ours."""
    status, marker, sandbox = look(paths, ctx)
    if status.presence == "absent" or marker.get(LABEL_INSTALL, paths.install) != paths.install:
        return None
    return sandbox or minimal(paths)


def _saved_handle(text: str, paths: SandboxPaths) -> NativeHandleData | None:
    """The handle that was saved beside the sandbox; it must be about this place to count."""
    if not text:
        return None
    try:
        data = document_bounds.decode_as(dict[str, Any], text, bounds=document_bounds.SMALL)
        sandbox = from_handle(Handle(version=UNGUARDED, data=data))
    except (msgspec.DecodeError, Conflict):
        return None  # half-written: a start that was killed
    return sandbox if sandbox.paths == paths else None


def _records(text: str) -> tuple[list[tuple[str, str, str]], list[str]]:
    lines = text.split("\n")[:-1]
    tags = [line.partition("=")[2] for line in lines if line.startswith("SANDBOXER_HOLDER=")]
    rest = [line for line in lines if not line.startswith("SANDBOXER_HOLDER=")]
    if len(rest) % 3:
        raise BackendError("the listing of sandboxes makes no sense", hint="run `sandboxer doctor`")
    return [(rest[i], rest[i + 1], rest[i + 2]) for i in range(0, len(rest), 3)], tags


def _number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, str | int | float) and value != "" else None
    except ValueError:
        return None
