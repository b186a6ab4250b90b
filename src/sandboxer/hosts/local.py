"""This machine as a placement host."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandboxer.errors import BackendError, Denied, NotConfigured, Timeout
from sandboxer.hosts.base import MAX_OUTPUT, Command, Host, HostAddress, Progress, Result, Streams, SyncReport
from sandboxer.hosts.process import launch, tracking
from sandboxer.hosts.process.capture import capture_output
from sandboxer.hosts.process.session import run_session
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline

DEFAULT_WORK_DIR = "~/.local/share/sandboxer/sandboxes"
_KEPT = ("PATH", "HOME", "LANG")


class LocalHost(Host):
    """The machine that sandboxer runs on.

    What `stream` and `run` start ends with this process, as a whole session, however this process ends; what `start`
    starts does not. `environ` is the login environment of its programs (this process's own unless given).
    """

    def __init__(self, name: str, settings: HostSettings, *, environ: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.compose = settings.compose
        self.env = dict(settings.env)
        self._work_dir = settings.work_dir or DEFAULT_WORK_DIR
        self.environ = os.environ if environ is None else environ

    def connect(self, deadline: Deadline) -> None:
        """Nothing to do: we are here."""
        deadline.check(f"connecting to {self.name}")

    def address(self) -> HostAddress:
        """Here."""
        return HostAddress(kind="local")

    def work_dir(self, deadline: Deadline) -> str:
        """config.yaml's `work_dir`, absolute."""
        return expand_home(self._work_dir, self.environ.get("HOME") or str(Path.home()))

    def check_settings(self) -> None:
        """See Host."""
        from sandboxer.hosts.trees import strict_modes

        path = self.work_dir(Deadline(None))
        strict_modes.check_utf8(path, host=self.name, setting=f"{self._setting} (it is below HOME by default)")

    @property
    def _setting(self) -> str:
        return f"`work_dir` of {self.name} in config.yaml"

    def check_place(self, path: str, deadline: Deadline) -> None:
        """See Host."""
        from sandboxer.hosts.trees import strict_modes

        deadline.check(f"looking at {path}")
        setting = self._setting
        strict_modes.check_utf8(path, host=self.name, setting=setting)
        try:
            fault = strict_modes.examine(Path(path))
        except OSError as error:
            raise _translated(error, f"who may write above {path} cannot be seen") from error
        if fault is not None:
            raise strict_modes.refusal(fault, path, host=self.name, user=strict_modes.this_user(), setting=setting)

    def stream(self, command: Command, streams: Streams, deadline: Deadline) -> int:
        """See Host. An interrupt is noticed at once when it comes as an exception in this thread."""
        if deadline.passed:
            raise Timeout(f"there was no time left to run {launch.program_of(command.argv)}", hint="give it longer")
        return run_session(command, streams, deadline, self._environment(command))

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
        """See Host."""
        command = Command(argv=argv, env=env or {}, cwd=cwd, track=track)
        return capture_output(self.stream, command, deadline, stdin=stdin, limit=limit)

    def start(self, argv: Sequence[str], deadline: Deadline, *, stdin: bytes = b"", log: str | None = None) -> None:
        """See Host."""
        launch.check_argv(argv)
        words = [launch.SHELL, "-c", launch.START, "sh", launch.anchored(log) if log else "", *argv]
        check_started(self.run(words, deadline, stdin=stdin), argv)

    def end_tracked(self, track: str, deadline: Deadline) -> int:
        """See Host."""
        return tracking.end_recorded(Path(track), deadline)

    def write_file(self, path: str, data: bytes, deadline: Deadline, *, mode: int = 0o600) -> None:
        """See Host."""
        deadline.check(f"writing {path}")
        target = Path(path)
        temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}-{os.urandom(4).hex()}")
        try:
            make_directories(target.parent)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(fd, "wb") as file:
                    os.fchmod(fd, mode)
                    file.write(data)
                temporary.rename(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _translated(error, f"{path} could not be written") from error

    def read_file(self, path: str, deadline: Deadline, *, limit: int = MAX_OUTPUT) -> bytes | None:
        """See Host."""
        deadline.check(f"reading {path}")
        try:
            with open(path, "rb") as file:
                data = file.read(limit + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _translated(error, f"{path} could not be read") from error
        if len(data) > limit:
            raise BackendError(f"{path} is longer than {limit} bytes", hint="it is not the file that was expected")
        return data

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
        """See Host. The target directory itself takes the mode of `source`."""
        from sandboxer.hosts.trees.sync import TreeCopy, sync_tree

        copy = TreeCopy(source=source, target=target, exclude=exclude, gitignore=gitignore, progress=progress)
        return sync_tree(self, copy, deadline, missing="" if self.has_rsync() else "here", local=self)

    def has_rsync(self) -> bool:
        """Whether rsync is installed here."""
        import shutil

        return shutil.which("rsync", path=self.environ.get("PATH", os.defpath)) is not None

    def close(self) -> None:
        """Nothing to do."""

    def _environment(self, command: Command) -> dict[str, str]:
        if command.clean_env:
            base = {name: self.environ[name] for name in _KEPT if name in self.environ}
        else:
            base = {**self.environ, **self.env}
        launch.check_env(command.env)
        return {**base, **command.env}


def expand_home(path: str, home: str) -> str:
    """A path with a leading `~` replaced; relative ones start at home."""
    if path == "~":
        return home
    return str(Path(home, path.removeprefix("~/")))


def make_directories(path: Path) -> None:
    """Make a directory and its missing parents, each 0700."""
    if path.is_dir():
        return
    make_directories(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def check_started(result: Result, argv: Sequence[str]) -> None:
    """What the script START answered: raises NotConfigured for a missing program, BackendError otherwise."""
    if result.code == 0:
        return
    if result.code == 127:
        raise NotConfigured(
            f"{argv[0]} cannot be started: {result.complaint}", hint=f"install {argv[0]} and setsid on the host"
        )
    why = f"signal {result.code - 128}" if result.code > 128 and result.code - 128 in signal.valid_signals() else ""
    raise BackendError(
        f"{argv[0]} cannot be started: {result.complaint or why or result.code}", hint="see the message for the cause"
    )


def _translated(error: OSError, what: str) -> BackendError | Denied:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BackendError(f"{what}: {error.strerror}", hint="make room on this machine (df -h), and try again")
    hint = f"look at the path on this machine: ls -ld {error.filename or ''}".rstrip()
    if isinstance(error, PermissionError):
        return Denied(f"{what}: {error.strerror}", hint=hint)
    return BackendError(f"{what}: {error.strerror}", hint=hint)
