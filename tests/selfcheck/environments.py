"""A small sandbox of bubblewrap for the self-check: good by default, with faults to plant one at a time."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sandboxer import names
from sandboxer.errors import Unsupported
from sandboxer.extensions.base import (
    CanCopy,
    CanExec,
    Context,
    Exec,
    Found,
    PathKind,
    SandboxExtension,
    Spec,
    Status,
)
from sandboxer.hosts.base import Command, Streams
from sandboxer.models import Handle, Isolation, Reachability, Ready, SyscallFilter

PYTHON = "/usr/bin/python3"


def usable() -> bool:
    """Whether this machine can hold such a box."""
    return shutil.which("bwrap") is not None and Path(PYTHON).exists()


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What is wrong with a box: bwrap words after the good ones, good words left out, words before bwrap, and before
    the program inside."""

    more: Sequence[str] = ()
    without: Sequence[str] = ()
    before: Sequence[str] = ()
    inside: Sequence[str] = ()
    clean_env: bool = True
    user: bool = True


class Mute(SandboxExtension):
    """An extension that can do nothing inside: only what every extension must have."""

    def check(self, ctx: Context) -> None: ...

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        raise Unsupported("not needed here")

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        raise Unsupported("not needed here")

    def status(self, handle: Handle, ctx: Context) -> Status:
        return Status("unknown")

    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        return None

    def inventory(self, ctx: Context) -> Sequence[Found]:
        return []

    def teardown(self, handle: Handle, ctx: Context) -> None: ...


class Box(Mute, CanExec, CanCopy):
    """Every exec is a bwrap of its own around the same workspace; nothing lives between."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()

    def establish(
        self, ctx: Context, *, network: str = "none", syscalls: SyscallFilter = "unknown"
    ) -> tuple[Handle, Ready]:
        """Make the directories, as a `provision` and a `wait_ready` would."""
        name = names.resource_name(names.new_id())
        workspace = Path(ctx.host.work_dir(ctx.deadline)) / name / "workspace"
        workspace.mkdir(parents=True)
        workspace.chmod(0o777)
        ready = Ready(
            reachability=Reachability(kind="local", remote_dir=str(workspace)),
            isolation=Isolation(class_="namespace", network=network, syscalls=syscalls, notes=[]),
        )
        return Handle(version=1, data={"workspace": str(workspace)}), ready

    def words(self, workspace: str) -> list[str]:
        """The box, without the program."""
        groups: list[tuple[str, ...]] = [
            ("--unshare-user",), ("--unshare-pid",), ("--unshare-ipc",), ("--unshare-uts",), ("--unshare-net",),
            ("--cap-drop", "ALL"), ("--clearenv",), ("--setenv", "PATH", "/usr/bin:/bin"), ("--new-session",),
            ("--die-with-parent",),
            ("--ro-bind", "/usr", "/usr"), ("--symlink", "usr/lib", "/lib"), ("--symlink", "usr/lib64", "/lib64"),
            ("--symlink", "usr/bin", "/bin"), ("--proc", "/proc"), ("--dev", "/dev"), ("--tmpfs", "/tmp"),
            ("--bind", workspace, "/workspace"), ("--chdir", "/workspace"),
        ]  # fmt: skip
        kept = [word for group in groups if group[0] not in self.faults.without for word in group]
        # An ordinary user of the host, as far as this machine's users allow: root runs the tests.
        drop = ["setpriv", "--reuid", "61234", "--regid", "61234", "--clear-groups"] if self.faults.user else []
        return [*self.faults.before, *drop, "bwrap", *kept, *self.faults.more]

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        argv = [*self.words(handle.data["workspace"]), *self.faults.inside, *request.argv]
        return ctx.host.stream(Command(argv=argv, clean_env=self.faults.clean_env), streams, ctx.deadline)

    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        target = Path(handle.data["workspace"]) / directory.removeprefix("/workspace/")
        with tarfile.open(fileobj=archive, mode="r|") as tar:
            tar.extractall(target, filter="data")
        target.chmod(0o777)

    def path_kind(self, handle: Handle, path: str, ctx: Context, *, service: str | None = None) -> PathKind:
        raise Unsupported("not needed here")

    def get_archive(
        self, handle: Handle, path: str, sink: Callable[[bytes], None], ctx: Context, *, service: str | None = None
    ) -> None:
        raise Unsupported("not needed here")

    def teardown(self, handle: Handle, ctx: Context) -> None:
        shutil.rmtree(Path(handle.data["workspace"]).parent)
