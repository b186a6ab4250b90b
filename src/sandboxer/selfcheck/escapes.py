"""Things that an isolated process should not be able to do, tried for real and harmlessly.

Files are made without a name where the file system allows it; settings and devices are opened, never written or
read; remounts happen in a child with mounts of its own. Runs inside the sandbox: standard library only.
"""

# pathlib's import would double the probe's time; the temporary places are the very thing asked about
# ruff: noqa: PTH108, PTH116, PTH118, PTH208, S108
from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

PLACES = (
    "/", "/boot", "/dev/shm", "/etc", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr",
    "/usr/local", "/var", "/var/tmp",
)  # fmt: skip
"""Where a program might try to write, besides the workspace."""
MAX_PLACES = 128
_SETTINGS = ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper")
_DEVICES = ("/dev/mem", "/dev/kmem", "/dev/port", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/loop-control")
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REMOUNT, _MS_BIND = 0x20, 0x1000


class MountPoint:
    """One line of mountinfo: where it is, which directory of its file system it shows, whether it is read-only."""

    __slots__ = ("at", "read_only", "source")

    def __init__(self, at: str, source: str, *, read_only: bool) -> None:
        self.at, self.source, self.read_only = at, source, read_only


def mounts() -> list[MountPoint]:
    """The mounts that we see, without /proc and /sys; none when the kernel does not tell."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines[:MAX_PLACES]:
        fields = line.split(" ")
        if len(fields) > 5 and not fields[4].startswith(("/proc", "/sys")):
            options = fields[5].split(",")
            found.append(MountPoint(_plain(fields[4]), _plain(fields[3]), read_only="ro" in options))
    return found


def _plain(text: str) -> str:
    for escaped, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escaped, plain)
    return text


def find_file(path: str, known: list[MountPoint]) -> dict[str, Any]:
    """Look for a file of the host under its own path and, wherever a part of the host's tree may be mounted, under
    every ending of that path. The text of the file that was found is the proof."""
    if not path:
        return {"seen": "unknown"}
    parts = path.strip("/").split("/")
    endings = ["/".join(parts[i:]) for i in range(len(parts))]
    roots = ["", "/proc/1/root", *(m.at.rstrip("/") for m in known)]
    denied = None
    for root in dict.fromkeys(roots):
        for ending in endings:
            place = f"{root}/{ending}"
            try:
                with open(place, encoding="utf-8", errors="replace") as file:
                    return {"seen": "read", "at": place, "text": file.read(200)}
            except PermissionError:
                denied = place
            except OSError:
                continue
    return {"seen": "denied", "at": denied} if denied else {"seen": "absent"}


def look(path: str) -> dict[str, Any]:
    """What is at a path: its identity (`device:inode`), and whether its contents can be had; never what they are."""
    try:
        info = os.stat(path)
    except PermissionError:
        return {"id": None, "readable": False, "denied": True}
    except OSError:
        return {"id": None, "readable": False}
    return {"id": f"{info.st_dev}:{info.st_ino}", "readable": _readable(path, info.st_mode)}


def _readable(path: str, mode: int) -> bool:
    try:
        if stat.S_ISDIR(mode):
            os.listdir(path)
            return True
        if stat.S_ISREG(mode):
            with open(path, "rb", buffering=0) as file:
                file.read(1)
            return True
    except OSError:
        return False
    return False


def writable(places: Iterable[str], workspace: str) -> list[list[str]]:
    """The directories outside the workspace in which a file can be made, each with its identity."""
    inside = workspace.rstrip("/") + "/"
    found = []
    for place in list(dict.fromkeys(places))[:MAX_PLACES]:
        if (place.rstrip("/") + "/").startswith(inside) or place.startswith(("/proc", "/sys")):
            continue
        try:
            info = os.stat(place)
        except OSError:
            continue
        if stat.S_ISDIR(info.st_mode) and can_create(place):
            found.append([place, f"{info.st_dev}:{info.st_ino}"])
    return found


def can_create(directory: str) -> bool:
    """Whether a file can be made there; none remains."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        os.close(os.open(directory, flags | os.O_TMPFILE, 0o600))
        return True
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            return False
    name = os.path.join(directory, f".sandboxer-try-{os.urandom(8).hex()}")
    try:
        os.close(os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(name)
    except OSError:
        return False
    return True


def leave_mark(workspace: str) -> int:
    """Make the file whose owner the host reads, to learn who we are there; its inode."""
    path = os.path.join(workspace, ".sandboxer", "owner")
    if os.path.lexists(path):
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


def openable() -> list[str]:
    """Devices that give more than they should when they can be opened: disks, memory, virtual machines."""
    disks = [entry.path for entry in os.scandir("/dev") if stat.S_ISBLK(entry.stat(follow_symlinks=False).st_mode)]
    return [path for path in (*_DEVICES, *sorted(disks)[:MAX_PLACES]) if _opens(path, os.O_RDONLY)]


def writable_settings() -> list[str]:
    """Settings of the whole kernel that we could change."""
    return [path for path in _SETTINGS if _opens(path, os.O_WRONLY)]


def _opens(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return True


def escalate(read_only: list[str]) -> dict[str, Any]:
    """Try to get writable what was mounted read-only: with what we have, then as root of a user namespace of our own.

    Each in a child: a kernel filter may kill it, and its mounts are its own, so nothing here changes."""
    privileged = _in_child(_CLONE_NEWNS, read_only)
    nested = _in_child(_CLONE_NEWNS | _CLONE_NEWUSER, read_only)
    return {
        "new_mounts": privileged is not None,
        "user_namespaces": nested is not None,
        "remounted": sorted({*(privileged or []), *(nested or [])}),
    }


def _in_child(flags: int, read_only: list[str]) -> list[str] | None:
    """The mounts that a child with the new namespaces made writable; None when it could not have the namespaces."""
    import ctypes

    libc = ctypes.CDLL(None)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            user = os.getuid()
            if libc.unshare(flags) == 0:
                if flags & _CLONE_NEWUSER:
                    _become(user)
                got = [at for at in read_only[:MAX_PLACES] if _remount(libc, at) and can_create(at)]
                os.write(writer, "\0".join(got).encode("utf-8", "surrogateescape")[:4000])
                code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    if status != 0:
        return None
    return text.split("\0") if text else []


def _remount(libc: Any, at: str) -> bool:
    code: int = libc.mount(b"none", at.encode("utf-8", "surrogateescape"), None, _MS_REMOUNT | _MS_BIND, None)
    return code == 0


def _become(user: int) -> None:
    """Be ourselves in the new user namespace: with an unmapped user nothing could be written for that reason alone."""
    try:
        with open("/proc/self/uid_map", "w", encoding="ascii") as file:
            file.write(f"{user} {user} 1")
    except OSError:
        return
