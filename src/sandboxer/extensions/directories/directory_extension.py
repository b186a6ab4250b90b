"""The extension that the stub and the fake inherit: it isolates nothing, and does all else of the contract."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from sandboxer.errors import BackendError, Conflict
from sandboxer.extensions.base import (
    CanCopy,
    CanExec,
    CanLogs,
    CanRenew,
    Context,
    Exec,
    Found,
    LeftOut,
    PathKind,
    SandboxExtension,
    Spec,
    Status,
)
from sandboxer.extensions.directories import files
from sandboxer.extensions.directories.sandbox import (
    STOPPED,
    WORKSPACE,
    directory_of,
    existing,
    marker,
    write_marker,
)
from sandboxer.hosts.base import Command, Host, Streams
from sandboxer.models import Handle, Isolation, Reachability, Ready
from sandboxer.names import LABEL_EXPIRES, LABEL_ID, LABEL_INSTALL, sandbox_id_of

_NEW = ".new-"
_SESSIONS = "sessions"
_CHUNK = 256 << 10
_SHORT_LOG = 1 << 20
_LONG_LINE = 1 << 10


class DirectoryExtension(SandboxExtension, CanExec, CanCopy, CanLogs, CanRenew):
    """Directories in `folder` below the host's work directory. Abstract: a subclass gives the class attributes."""

    folder: ClassVar[str]
    notes: ClassVar[list[str]]
    """What is said of its isolation."""

    def at(self, point: str) -> None:
        """Called before the first effect of a method (its bare name), and after the named step: a fake fails here."""

    def check(self, ctx: Context) -> None:
        """Make the folder, as any backend that answers."""
        self.root(ctx)

    def examine(self, spec: Spec, host: Host) -> None:
        """A directory that no handle could hold is refused before it is made."""
        host.check_settings()

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        """Make an empty workspace."""
        return self.make(spec, ctx, tree=None)

    def make(self, spec: Spec, ctx: Context, *, tree: Path | None) -> Handle:
        """Make a sandbox, with a copy of `tree` in its workspace if given."""
        self.at("provision")
        ctx.deadline.check("making the directory")
        root = self.root(ctx) / spec.resource
        # The marker comes first under another name, so that a directory of ours is never without one.
        fresh = root.with_name(f"{_NEW}{spec.resource}")
        fresh.mkdir(parents=True, mode=0o700)
        write_marker(fresh, {**spec.labels, "created_at": time.time(), **self.remembered(spec)})
        workspace = fresh / WORKSPACE
        if tree is None:
            workspace.mkdir()
        else:
            files.copy_tree(tree, workspace)
        self.fill(workspace, spec)
        (fresh / "log").write_text("established\n")
        fresh.rename(root)
        self.at("provision.made")
        handle = Handle(version=1, data={"directory": str(root)})
        ctx.save(handle)
        self.at("provision.saved")
        return handle

    def remembered(self, spec: Spec) -> Mapping[str, Any]:
        """What else the marker file has; for subclasses."""
        return {}

    def fill(self, workspace: Path, spec: Spec) -> None:
        """Put something into a new workspace; for subclasses."""

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        """It is at once."""
        self.at("wait_ready")
        directory = directory_of(handle)
        if not directory.is_dir():
            raise BackendError("the directory is gone", hint="create it again")
        return Ready(
            reachability=Reachability(kind="local", remote_dir=str(directory / WORKSPACE)),
            isolation=Isolation(class_="none", network="host", syscalls="unfiltered", notes=self.notes),
        )

    def status(self, handle: Handle, ctx: Context) -> Status:
        """Whether the directory is there."""
        try:
            self.at("status")
            directory = directory_of(handle)
        except Exception as error:  # noqa: BLE001 - the contract: a look that failed is `unknown`
            return Status("unknown", str(error))
        if not directory.is_dir():
            return Status("absent")
        return Status("stopped" if marker(directory).get(STOPPED) else "running")

    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        """The directory, also one that was not finished."""
        self.at("find")
        for name in (f"sbx-{sandbox_id}", f"{_NEW}sbx-{sandbox_id}"):
            directory = self.root(ctx) / name
            if directory.is_dir():
                return Handle(version=1, data={"directory": str(directory)})
        return None

    def inventory(self, ctx: Context) -> list[Found]:
        """The directories with this installation's label."""
        self.at("inventory")
        found: list[Found] = []
        for directory in sorted(self.root(ctx).glob("*sbx-*")):
            labels = marker(directory)
            sandbox_id = sandbox_id_of(directory.name.removeprefix(_NEW))
            if sandbox_id is None or labels.get(LABEL_INSTALL) != ctx.install:
                continue
            expires = str(labels.get(LABEL_EXPIRES, "never"))
            found.append(
                Found(
                    sandbox_id=str(labels[LABEL_ID]),
                    handle=Handle(version=1, data={"directory": str(directory)}),
                    created_at=labels.get("created_at"),
                    expires_at=None if expires == "never" else float(expires),
                    labels={key: str(value) for key, value in labels.items() if key.startswith("sandboxer.")},
                    detail=str(directory),
                )
            )
        return found

    def teardown(self, handle: Handle, ctx: Context) -> None:
        """End what runs, and remove the directory."""
        self.at("teardown")
        directory = directory_of(handle)
        self.end_commands(directory, ctx)
        shutil.rmtree(directory / WORKSPACE, ignore_errors=True)
        self.at("teardown.half")
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            raise BackendError(f"{directory} could not be removed", hint="look at its owner", outcome="unknown")
        self.at("teardown.done")

    def renew(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """Write the new end into the marker file."""
        self.at("renew")
        expires = "never" if expires_at is None else str(int(expires_at))
        write_marker(existing(handle), {**marker(existing(handle)), LABEL_EXPIRES: expires})

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        """Run a command in the workspace, in a clean environment."""
        directory = existing(handle)
        if marker(directory).get(STOPPED):
            raise Conflict("the sandbox is stopped", hint="run `sandboxer start ID`", details={"presence": "stopped"})
        command = Command(
            argv=request.argv,
            env=request.env,
            clean_env=True,
            cwd=str(directory / WORKSPACE / (request.cwd or "")),
            track=str(directory / _SESSIONS),
            tty=request.tty,
        )
        return ctx.host.stream(command, streams, ctx.deadline)

    def end_commands(self, directory: Path, ctx: Context) -> None:
        """Kill what still runs of it, whoever started it."""
        sessions = directory / _SESSIONS
        if sessions.is_dir():
            ctx.host.end_tracked(str(sessions), ctx.deadline)

    def path_kind(self, handle: Handle, path: str, ctx: Context, *, service: str | None = None) -> PathKind:
        """What is at a path."""
        return files.path_kind(existing(handle) / WORKSPACE, path)

    def knows_holes(self, handle: Handle, ctx: Context, *, service: str | None = None) -> bool:
        """tarfile does."""
        return True

    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        """Unpack, without leaving the directory."""
        files.put_archive(existing(handle) / WORKSPACE, directory, archive)

    def get_archive(
        self,
        handle: Handle,
        path: str,
        sink: Callable[[bytes], None],
        ctx: Context,
        *,
        service: str | None = None,
    ) -> LeftOut | None:
        """Pack."""
        return files.get_archive(existing(handle) / WORKSPACE, path, sink)

    def logs(
        self,
        handle: Handle,
        streams: Streams,
        ctx: Context,
        *,
        service: str | None,
        follow: bool,
        tail: int | None,
    ) -> None:
        """What happened to it; `follow` waits for nothing, because nothing more comes."""
        with (existing(handle) / "log").open("rb") as log:
            if tail is not None:
                streams.stdout(_last_lines(log, tail))
                return
            while chunk := log.read(_CHUNK):
                ctx.deadline.check("reading the log")
                streams.stdout(chunk)

    def root(self, ctx: Context) -> Path:
        """Where all of them are; made when missing."""
        root = Path(ctx.host.work_dir(ctx.deadline)) / self.folder
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        return root


def _last_lines(log: BinaryIO, count: int) -> bytes:
    """The last lines of a file, which may be a hole of TiB: of its end only what so many lines may take is read."""
    end = log.seek(0, os.SEEK_END)
    log.seek(max(0, end - _SHORT_LOG - count * _LONG_LINE))
    lines = log.read().splitlines(keepends=True)
    return b"".join(lines[len(lines) - min(count, len(lines)) :])
