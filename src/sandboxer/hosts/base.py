"""The contract of a placement host: run words, move bytes and trees, end what was started.

A command is a list of words (argv). It runs in its own session, so that it can be ended as a whole: by the deadline,
and, when it is `tracked`, later by any other process. Environment values never appear in anybody's argv.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from sandboxer.timing import Deadline

Sink = Callable[[bytes], None]
Progress = Callable[[str], None]
MAX_OUTPUT = 16 * 1024 * 1024
"""How much of a captured stream is kept, in bytes, unless told otherwise; more raises BackendError."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One program to run on a host.

    `env` is laid over the host's own settings `env`; `clean_env` starts from PATH, HOME, LANG alone. `track` names a
    directory on the host (below a sandbox's directory) where the session is recorded, so that `end_tracked` can end it
    later from another process. `prelude` is written to the program's stdin before anything else. `tty` asks for a
    terminal, then stderr is merged into stdout.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = {}
    clean_env: bool = False
    cwd: str | None = None
    track: str | None = None
    prelude: bytes = b""
    tty: bool = False


class Streams(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running command's streams go. `stdin` None is an empty input; chunks arrive as they come."""

    stdin: BinaryIO | None = None
    stdout: Sink
    stderr: Sink


class Result(msgspec.Struct, frozen=True):
    """How a command ended: its exit code (128 + n when signal n ended it) and what it wrote. A failure is a Result too;
    only "we could not run it" is an error."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """stdout as text, without the last newline."""
        return self.stdout.decode("utf-8", "replace").rstrip("\n")

    @property
    def complaint(self) -> str:
        """The last lines of stderr (or stdout), short enough for an error message."""
        lines = (self.stderr or self.stdout).decode("utf-8", "replace").strip().splitlines()
        return "\n".join(lines[-8:])[-2000:]


class HostAddress(msgspec.Struct, frozen=True, kw_only=True):
    """How a consumer reaches the host itself. `host_key` is the verified key's `SHA256:...` fingerprint."""

    kind: str  # "local" or "ssh"
    host: str | None = None
    port: int | None = None
    user: str | None = None
    command: str | None = None
    host_key: str | None = None


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a sync did: the way (`rsync`, `tar`), files and bytes sent, and anything the user should be told."""

    method: str
    files: int
    sent_bytes: int
    notes: tuple[str, ...] = ()


class Host(ABC):
    """One placement host. Every method raises Unavailable (no answer), Denied (credentials or host key refused),
    Timeout (deadline), NotConfigured (a program is missing); what a program answers is never an exception.

    Instances may be used from several threads; `close` ends connections.
    """

    name: str
    """The placement name: `local`, or as in config.yaml."""
    compose: str | None
    """The compose command of config.yaml for this host."""
    env: Mapping[str, str]
    """Environment for the programs that run on the host (config.yaml `env`)."""

    @abstractmethod
    def connect(self, deadline: Deadline) -> None:
        """Make sure that the host answers and is the right one. Cheap when it is connected already."""

    @abstractmethod
    def address(self) -> HostAddress:
        """How a consumer reaches this host."""

    @abstractmethod
    def work_dir(self, deadline: Deadline) -> str:
        """The absolute directory where `sbx-<id>` directories are made (config.yaml `work_dir`, else
        `~/.local/share/sandboxer/sandboxes` of the remote user, resolved). Not created by this call."""

    def check_settings(self) -> None:  # noqa: B027 - most have nothing that can be told from here
        """Raise Invalid for a work directory that no handle and no record could hold, as far as that can be told
        without a connection."""

    def check_place(self, path: str, deadline: Deadline) -> None:  # noqa: B027 - a host of somebody else may have none
        """Raise Denied when others than this host's user and root can change what lies at `path`, a directory that
        things are run from (see `strict_modes`), and Invalid when it is not written in UTF-8. Making it, when it is
        missing, is allowed."""

    @abstractmethod
    def stream(self, command: Command, streams: Streams, deadline: Deadline) -> int:
        """Run a command, passing bytes as they come; the exit code. When the deadline passes, the command's whole
        session is killed on the host, and Timeout is raised. The same when this thread is interrupted."""

    @abstractmethod
    def run(
        self,
        argv: Sequence[str],
        deadline: Deadline,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        track: str | None = None,
        limit: int = MAX_OUTPUT,
    ) -> Result:
        """Run a command to its end and keep what it wrote."""

    @abstractmethod
    def start(self, argv: Sequence[str], deadline: Deadline, *, stdin: bytes = b"", log: str | None = None) -> None:
        """Start a program that outlives us and the connection: own session, no descriptors of ours, output to the
        file `log` on the host (or nowhere). Returns once it has been started; it is not waited for."""

    @abstractmethod
    def end_tracked(self, track: str, deadline: Deadline) -> int:
        """Kill every session recorded in the directory `track` that still lives (identity checked by start time);
        returns how many were. A missing directory is 0."""

    @abstractmethod
    def write_file(self, path: str, data: bytes, deadline: Deadline, *, mode: int = 0o600) -> None:
        """Write a whole file atomically (temporary name, rename), making missing parent directories (0700)."""

    @abstractmethod
    def read_file(self, path: str, deadline: Deadline, *, limit: int = MAX_OUTPUT) -> bytes | None:
        """The bytes of a file, or None when there is none. Other failures raise BackendError."""

    @abstractmethod
    def sync(
        self,
        source: Path,
        target: str,
        deadline: Deadline,
        *,
        exclude: Sequence[str] = (),
        gitignore: bool = False,
        progress: Progress | None = None,
    ) -> SyncReport:
        """Copy the tree below `source` (on this machine) into the directory `target` on the host: contents, modes,
        symbolic links as links, times; not owners, devices or sockets. `exclude` are rsync-style anchored patterns
        such as `/.git`; `gitignore` leaves out what the tree's .gitignore files say, as git reads them. By rsync where
        both sides have it, else tar."""

    @abstractmethod
    def close(self) -> None:
        """End connections. Nothing that `start` started ends by it."""
