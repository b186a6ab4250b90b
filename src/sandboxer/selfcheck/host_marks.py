"""The host's side of the self-check: plant a file that the sandbox must not find, and tell the host's own marks.

Two constant scripts, one round trip each: `begin` (together with the telemetry) and `end`, which takes the planted
file away and says as whom the probe acted.
"""

# ruff: noqa: S108 - the places are named to be looked at, nothing is put there
from __future__ import annotations

import posixpath
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

from sandboxer import document_bounds, names, telemetry
from sandboxer.errors import BackendError
from sandboxer.hosts.base import Host
from sandboxer.models import Value
from sandboxer.timing import Deadline

SYSTEM_PLACES: Final = (
    "/", "/boot", "/dev/shm", "/etc", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr",
    "/usr/local", "/var", "/var/tmp", "/etc/shadow", "/etc/gshadow", "/etc/ssh", "/etc/sudoers", "/var/lib/docker",
    "/var/lib/containers", "/var/log",
)  # fmt: skip
SOCKETS: Final = (
    "/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock", "/run/crio/crio.sock",
    "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/notify",
)  # fmt: skip
"""Services of a host that, where they answer, hand out the host."""
CANARY: Final = ".sandboxer-canary"
_STALE_SECONDS: Final = 3600
_MAX_ADDRESSES: Final = 16

# $1 work directory, $2 whose versions, $3 the file to plant, $4 unix time before which forgotten ones are removed,
# the rest: paths to identify. Descriptor 3: what to write. The walk up from our own process ends at the host's first
# one; `rest` is cut after the last parenthesis, for a program's name may hold spaces.
_BEGIN: Final = r"""
sbx_plant=$3; sbx_before=$4
for sbx_old in "$1"/.sandboxer-canary-*; do
  sbx_made=${sbx_old##*.sandboxer-canary-}; sbx_made=${sbx_made%%-*}
  case $sbx_made in ''|*[!0-9]*) continue ;; esac
  [ "$sbx_made" -lt "$sbx_before" ] && rm -f -- "$sbx_old"
done
shift 4
echo "@planted"
(umask 022; cat <&3 > "$sbx_plant") && echo "$sbx_plant"
echo "@identities"
stat -L -c '%d:%i %n' -- "$@" "$HOME" "${SSH_AUTH_SOCK:-/nonexistent}" "${XDG_RUNTIME_DIR:-/nonexistent}" 2>/dev/null
echo "@home"
printf '%s\n' "$HOME" "$SSH_AUTH_SOCK" "$XDG_RUNTIME_DIR"
echo "@namespaces"
ls -l /proc/self/ns 2>/dev/null
echo "@addresses"
grep -s -B1 'host LOCAL' /proc/net/fib_trie
echo "@addresses6"
grep -s . /proc/net/if_inet6
echo "@session"
echo "$SSH_CONNECTION"
echo "@processes"
sbx_pid=$$; sbx_count=0
while [ "$sbx_count" -lt 16 ]; do
  read -r sbx_stat < "/proc/$sbx_pid/stat" || break
  [ "$sbx_pid" = $$ ] || echo "$sbx_stat"
  sbx_rest=${sbx_stat##*) }
  set -- $sbx_rest
  sbx_pid=$2; sbx_count=$((sbx_count + 1))
  case $sbx_pid in ''|0|*[!0-9]*) break ;; esac
done
"""
_END: Final = r"""
rm -f -- "$1"
shift
stat -c '%u %i' -- "$@" 2>/dev/null
exit 0
"""


class HostMarks(Value, frozen=True, kw_only=True):
    """What marks the host out, so that it can be recognised from inside.

    `identities` are `device:inode` by path; `private` the paths nobody inside has any business with; `processes`
    pairs of process number and start time; `connect` addresses at which the host answers.
    """

    telemetry: Mapping[str, Any]
    planted: str
    secret: str
    boot_id: str | None
    namespaces: Mapping[str, int]
    identities: Mapping[str, str]
    private: frozenset[str]
    sockets: tuple[str, ...]
    processes: tuple[tuple[int, int], ...]
    connect: tuple[tuple[str, int], ...]
    own_directory: str | None

    def targets(self, *, listener: int | None) -> dict[str, Any]:
        """What the probe is told to try for. Nothing in it is worth keeping from a sandbox except `secret`, which is
        therefore not in it."""
        connect = [*self.connect, *([("127.0.0.1", listener)] if listener else [])]
        return {
            "nonce": secrets.token_hex(16),
            "canary": self.planted,
            "paths": list(self.identities),
            "sockets": list(self.sockets),
            "processes": [list(pair) for pair in self.processes],
            "connect": [list(pair) for pair in connect],
        }


class HostPaths(Value, frozen=True, kw_only=True):
    """Where things are on the host: the work directory, the sandbox's own directory when it has one around its
    workspace, the file to plant, and where the probe's mark may lie."""

    work_dir: str
    own_directory: str | None
    plant: str
    marks: tuple[str, ...]


def ground(work_dir: str, remote_dir: str | None, *, now: float | None = None) -> HostPaths:
    """Choose where to plant. Best is the sandbox's own directory, beside the workspace: if we are killed before we
    clean up, teardown takes the file too. Else the work directory, where a later self-check clears up by age."""
    own = _own_directory(remote_dir)
    stamp = f"{CANARY}-{int(time.time() if now is None else now)}-{secrets.token_hex(8)}"
    marks = [f"{remote_dir}{part}/.sandboxer/owner" for part in ("", "/workspace")] if remote_dir else []
    plant = posixpath.join(own or work_dir, stamp)
    return HostPaths(work_dir=work_dir, own_directory=own, plant=plant, marks=tuple(marks))


def _own_directory(remote_dir: str | None) -> str | None:
    parent = posixpath.dirname((remote_dir or "").rstrip("/"))
    return parent if names.sandbox_id_of(posixpath.basename(parent)) else None


def begin(host: Host, where: HostPaths, deadline: Deadline) -> HostMarks:
    """Plant the file and ask the host for its marks and its telemetry; one round trip. Raises BackendError when
    nothing could be planted: then nothing could be measured either."""
    secret = secrets.token_hex(16)
    private = [where.work_dir, *_ancestors(where.work_dir)]
    if where.own_directory is not None:
        private.append(where.own_directory)
    paths = dict.fromkeys([*private, *SYSTEM_PLACES, *SOCKETS])
    before = str(int(time.time()) - _STALE_SECONDS)
    argv = [
        "sh",
        "-c",
        telemetry.script(_BEGIN),
        "sandboxer-selfcheck",
        where.work_dir,
        "engines",
        where.plant,
        before,
        *paths,
    ]
    result = host.run(argv, deadline, stdin=secret.encode(), limit=telemetry.OUTPUT_LIMIT)
    parts = telemetry.sections(result.text)
    if where.plant not in parts.get("planted", []) or "end" not in parts:
        raise BackendError(
            f"the self-check could not begin on host {host.name}: {result.complaint or 'its answer was cut off'}",
            hint=f"look whether {posixpath.dirname(where.plant)} can be written on that host, and is not full",
        )
    return read_facts(result.text, where, private=private, secret=secret)


def read_facts(text: str, where: HostPaths, *, private: list[str], secret: str) -> HostMarks:
    """The facts in the script's answer. Never raises: what the host did not tell is empty."""
    parts = telemetry.sections(text)
    home, agent, runtime = (*parts.get("home", []), "", "", "")[:3]
    identities = {path: mark for mark, _, path in (line.partition(" ") for line in parts.get("identities", [])) if path}
    boot = [line.partition(":")[2] for line in parts.get("files", []) if line.startswith("/proc/sys/kernel/random/")]
    own = {home, runtime, "/root", "/home", "/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/var/lib/docker"}
    known_sockets = [*SOCKETS, agent, *_user_sockets(runtime)]
    return HostMarks(
        telemetry=telemetry.parse(text),
        planted=where.plant,
        secret=secret,
        boot_id=boot[0] if boot else None,
        namespaces={
            name: int(inode) for name, inode in re.findall(r"-> (\w+):\[(\d{1,18})\]", _lines(parts, "namespaces"))
        },
        identities=identities,
        private=frozenset((own | set(private) | {"/var/lib/containers"}) - {"/", ""}),
        sockets=tuple(path for path in known_sockets if path),
        processes=tuple(filter(None, map(_process, parts.get("processes", [])))),
        connect=_addresses(parts),
        own_directory=where.own_directory,
    )


def end(host: Host, where: HostPaths, deadline: Deadline) -> dict[int, int]:
    """Take the planted file away. The owners (user numbers as the host sees them) of the marks, by inode."""
    result = host.run(["sh", "-c", _END, "sandboxer-selfcheck", where.plant, *where.marks], deadline, limit=65536)
    pairs = ([document_bounds.number(word) for word in line.split()] for line in result.text.splitlines())
    return {p[1]: p[0] for p in pairs if len(p) == 2 and p[0] is not None and p[1] is not None}


def _lines(parts: Mapping[str, list[str]], name: str) -> str:
    return "\n".join(parts.get(name, []))


def _ancestors(path: str) -> list[str]:
    """The directories above a path, without the root and those that hold the system: `/srv/a/b` gives `/srv/a`."""
    found = []
    while (path := posixpath.dirname(path)) not in ("/", "") and path not in SYSTEM_PLACES:
        found.append(path)
    return found


def _user_sockets(runtime: str) -> list[str]:
    return [f"{runtime}/{name}" for name in ("docker.sock", "podman/podman.sock", "bus")] if runtime else []


def _process(line: str) -> tuple[int, int] | None:
    """(number, start time) in a line of /proc/PID/stat."""
    number, fields = document_bounds.number(line.partition(" ")[0]), line.rpartition(")")[2].split()
    started = document_bounds.number(fields[19]) if len(fields) >= 20 else None
    return None if number is None or started is None else (number, started)


def _addresses(parts: Mapping[str, list[str]]) -> tuple[tuple[str, int], ...]:
    """The host's own addresses beyond loopback. The port need not be open: a refusal shows that we came through."""
    session = _lines(parts, "session").split()
    port = (document_bounds.number(session[3]) if len(session) == 4 else None) or 22
    sshd = [(session[2], port)] if len(session) == 4 else []
    v4 = re.findall(r"\|-- (\d{1,3}(?:\.\d{1,3}){3})\n\s+/32 host LOCAL", _lines(parts, "addresses"))
    v6 = [_long_form(m[1]) for m in re.finditer(r"(?m)^([0-9a-f]{32}) \S+ \S+ 00 ", _lines(parts, "addresses6"))]
    plain = [(address, port) for address in [*v4, *v6] if not address.startswith("127.")]
    beyond = [pair for pair in sshd if not pair[0].startswith(("127.", "::1"))]
    return tuple(dict.fromkeys([*beyond, *plain]))[:_MAX_ADDRESSES]


def _long_form(digits: str) -> str:
    return ":".join(digits[i : i + 4] for i in range(0, 32, 4))
