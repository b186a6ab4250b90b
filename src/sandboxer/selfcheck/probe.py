"""The part of the self-check that runs inside: `python3 -m sandboxer.selfcheck.probe`, facts on stdin, JSON on stdout.

It measures by doing and judges nothing: whether a thing it met is the host's is decided outside, where the host can
be asked (`findings`). Standard library only; a measure that a strange kernel refuses is None, and the rest goes on.
"""

# pathlib's import would double the probe's time
# ruff: noqa: PTH109, PTH115, PTH116, PTH208
from __future__ import annotations

import json
import os
import stat
import sys
from binascii import crc32

from sandboxer import __version__
from sandboxer.selfcheck import escapes, network, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

FORMAT = 1
MAX_LIST = 64
"""How many items of a list are told, at most: the answer stays below some 20 KB."""
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_ORDINARY_DEVICES = frozenset(
    ("console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
     "tty", "urandom", "zero")
)  # fmt: skip


def measure(targets: dict[str, Any]) -> dict[str, Any]:
    """Everything that can be found out from here. `targets` are the host's facts that must be tried for."""
    mounts = escapes.mounts()
    nonce = str(targets.get("nonce", ""))
    workspace = str(targets.get("workspace") or os.getcwd())
    places = _below_root(str(path) for path in targets.get("paths", []))
    measures: dict[str, Callable[[], Any]] = {
        "hostname": lambda: os.uname().nodename,
        "kernel": lambda: os.uname().release,
        "boot_id": lambda: _read("/proc/sys/kernel/random/boot_id"),
        "uid": os.getuid,
        "namespaces": _own_namespaces,
        "status": _status,
        "processes": lambda: _processes(targets.get("processes", [])),
        "canary": lambda: escapes.find_file(str(targets.get("canary", "")), mounts),
        "paths": lambda: {path: escapes.look(path) for path in places},
        "mounts": lambda: [[m.at, m.source] for m in mounts if "/sbx-" in m.source][:MAX_LIST],
        "writable": lambda: escapes.writable([*escapes.PLACES, *places, *(m.at for m in mounts)], workspace),
        "mark": lambda: escapes.leave_mark(workspace),
        "interfaces": network.interfaces,
        "default_route": network.default_route,
        "reached": lambda: network.connect_all(targets.get("connect", []), nonce),
        "sockets": lambda: [path for path in targets.get("sockets", []) if network.connects(str(path))],
        "escalation": lambda: escapes.escalate([m.at for m in mounts if m.read_only]),
        "environment": lambda: {name: crc32((nonce + value).encode()) for name, value in os.environ.items()},
        "descriptors": _descriptors,
        "devices": _devices,
        "openable": escapes.openable,
        "kernel_settings": escapes.writable_settings,
        "open_calls": syscalls.open_calls,
        "traces_init": syscalls.traces_init,
        "kernel_files": syscalls.kernel_files,
        "limits": _limits,
    }
    answer: dict[str, Any] = {"format": FORMAT, "nonce": nonce, "sandboxer": __version__}
    answer["python"] = ".".join(str(n) for n in sys.version_info[:3])
    failed: dict[str, str] = {}
    for name, what in measures.items():
        try:
            answer[name] = what()
        except Exception as error:  # noqa: BLE001 - one measure that breaks on a strange system must not hide the others
            answer[name], failed[name] = None, f"{type(error).__name__}: {error}"[:200]
    answer["failed"] = failed
    return answer


def _below_root(paths: Iterable[str]) -> list[str]:
    return [path for path in dict.fromkeys(paths) if path.startswith("/")][:MAX_LIST]


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536).strip()
    except OSError:
        return None


def _own_namespaces() -> dict[str, int]:
    """The inode that names each of our namespaces."""
    found = {}
    for name in _NAMESPACES:
        try:
            found[name] = os.stat(f"/proc/self/ns/{name}").st_ino
        except OSError:
            continue
    return found


def _status() -> dict[str, str]:
    """The lines of /proc/self/status that tell of privileges."""
    lines = (_read("/proc/self/status") or "").splitlines()
    pairs = (line.partition(":")[::2] for line in lines)
    wanted = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
    return {key: value.strip() for key, value in pairs if key in wanted}


def _processes(markers: list[list[int]]) -> dict[str, Any] | None:
    """How many processes are visible, and which of the host's: same number *and* same start time, in clock ticks."""
    try:
        seen = sum(name.isdigit() for name in os.listdir("/proc"))
    except OSError:
        return None
    if not seen:
        return None
    met = [[pid, start] for pid, start in markers[:MAX_LIST] if _start_time(int(pid)) == int(start)]
    return {"seen": seen, "of_host": met}


def _start_time(pid: int) -> int | None:
    # The name in parentheses may hold spaces and parentheses: count from the last one.
    fields = (_read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else None


def _descriptors() -> list[list[Any]]:
    """Descriptors beyond 0, 1 and 2 that we were started with."""
    kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFBLK: "device", stat.S_IFSOCK: "socket"}
    found: list[list[Any]] = []
    for name in os.listdir("/proc/self/fd"):
        if int(name) <= 2:
            continue
        try:
            kind = kinds.get(stat.S_IFMT(os.fstat(int(name)).st_mode), "other")
            found.append([int(name), kind, os.readlink(f"/proc/self/fd/{name}")])
        except OSError:
            continue  # the listing's own descriptor
    return found[:MAX_LIST]


def _devices() -> list[str]:
    """What is in /dev beyond the ordinary."""
    return sorted(set(os.listdir("/dev")) - _ORDINARY_DEVICES)[:MAX_LIST]


def _limits() -> dict[str, int | None]:
    """What holds us back; None is no limit, or none that can be seen from here."""
    import resource

    def limit(which: int) -> int | None:
        soft = resource.getrlimit(which)[0]
        return None if soft == resource.RLIM_INFINITY else soft

    memory = _read("/sys/fs/cgroup/memory.max") or _read("/sys/fs/cgroup/memory/memory.limit_in_bytes") or ""
    # Version 1 writes "no limit" as a number near 2**63.
    group = int(memory) if memory.isdigit() and int(memory) < 2**60 else None
    return {
        "processes": limit(resource.RLIMIT_NPROC),
        "open_files": limit(resource.RLIMIT_NOFILE),
        "address_space_bytes": limit(resource.RLIMIT_AS),
        "memory_bytes": group,
    }


def main() -> int:
    """Read the targets, if there are any, and print what was found."""
    text = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read(1 << 20)
    targets = json.loads(text) if text.strip() else {}
    json.dump(measure(targets), sys.stdout)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
