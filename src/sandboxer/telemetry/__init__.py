"""What a placement host says of itself: processors, load, memory, disk, container engines (docs/host-telemetry.md).

One shell script, one round trip. It reads /proc and runs few programs, because over SSH each run costs 0.15 s and
locally each process 1 ms; versions of engines are asked for only on request, all at once, each under a time limit.
`parse` takes whatever came back: what is missing or malformed is None, so that a strange host still has a report.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sandboxer.hosts.base import Host
from sandboxer.timing import Deadline

ENGINES: Final = ("docker", "docker compose", "docker-compose", "podman", "podman-compose")
TOOLS: Final = ("bwrap", "rsync", "python3")
OUTPUT_LIMIT: Final = 512 * 1024
"""How many bytes of answer are taken, at most. A plain host answers with 3 KB."""
_MAX_TEXT: Final = 200
_MAX_DIGITS: Final = 15

# The scripts are constant; $1 is the directory whose disk counts, $2 whose versions are wanted: none, engines or all.
# Traps: `command -v` prints without a fork, `$(...)` does not. Python's compose front ends take 130 ms to tell their
# version, so it is read from the metadata beside their interpreter. `read` may meet a binary there: the first line of
# one is short enough. Several programs tell their version at once, so each line is printed by one `printf`.
_VERSIONS: Final = r"""
LC_ALL=C; export LC_ALL
sbx_plugin=
for sbx_place in "$HOME/.docker" /usr/local/lib/docker /usr/local/libexec/docker /usr/lib/docker /usr/libexec/docker
do
  [ -n "$sbx_plugin" ] || [ ! -x "$sbx_place/cli-plugins/docker-compose" ] ||
    sbx_plugin=$sbx_place/cli-plugins/docker-compose
done
command -v docker >/dev/null || sbx_plugin=
command -v timeout >/dev/null || timeout() { shift; "$@"; }
sbx_version() {
  sbx_label=$1; shift
  "$@" 2>/dev/null </dev/null | { read -r sbx_line; printf '%s\t%s\n' "$sbx_label" "$sbx_line"; }
}
sbx_python_version() {
  sbx_path=$(command -v "$1") || return
  read -r sbx_first < "$sbx_path"
  sbx_python=${sbx_first#\#!}
  for sbx_found in "${sbx_python%/bin/*}"/lib/python3*/*-packages/"$2"-* \
    "${sbx_path%/bin/*}"/lib/python3*/*-packages/"$2"-*
  do
    [ -e "$sbx_found" ] && printf '%s\t%s\n' "$1" "${sbx_found##*/"$2"-}" && return
  done
  sbx_version "$1" timeout 2 "$1" --version
}
sbx_versions() {
  [ "$1" != none ] || return 0
  sbx_asked="docker podman"
  [ "$1" = engines ] || sbx_asked="docker podman bwrap rsync python3"
  for sbx_name in $sbx_asked; do
    command -v "$sbx_name" >/dev/null && sbx_version "$sbx_name" timeout 2 "$sbx_name" --version &
  done
  [ -n "$sbx_plugin" ] && sbx_version "docker compose" timeout 2 "$sbx_plugin" version --short &
  sbx_python_version podman-compose podman_compose &
  sbx_python_version docker-compose docker_compose &
  wait
}
"""
_FACTS: Final = r"""
echo "@files"
grep -Hs . /proc/loadavg /proc/uptime /proc/meminfo /proc/sys/kernel/random/boot_id /etc/os-release \
  /sys/devices/system/cpu/online
echo "@cpu"
grep -m1 -E '^(model name|Model|Hardware)' /proc/cpuinfo 2>/dev/null
echo "@uname"
uname -s; uname -n; uname -r; uname -m
echo "@disk"
sbx_dir=$1
while [ -n "$sbx_dir" ] && [ ! -d "$sbx_dir" ]; do sbx_dir=${sbx_dir%/*}; done
df -Pk "${sbx_dir:-/}" 2>/dev/null
echo "@programs"
for sbx_name in docker docker-compose podman podman-compose bwrap rsync python3; do
  printf '%s\t' "$sbx_name"; command -v "$sbx_name" || echo
done
printf 'docker compose\t%s\n' "$sbx_plugin"
"""
_LAST: Final = """
echo "@versions"
cat
echo "@end"
"""


def script(more: str = "") -> str:
    """The whole script, with another one's questions put in; that finds its stdin on descriptor 3, and the parameters
    from $1 on. Versions are asked for meanwhile, at the other end of a pipe that keeps them for the last section."""
    return f'{_VERSIONS}exec 3<&0\nsbx_versions "$2" </dev/null | {{{_FACTS}{more}{_LAST}}}\n'


def host_telemetry(host: Host, deadline: Deadline, *, engines: bool = False) -> dict[str, Any]:
    """How the host is now. One round trip; below 30 ms locally, with `engines` (versions too) below 100 ms.

    Raises what `Host.run` raises. What the host did not tell is None."""
    argv = ["sh", "-c", script(), "sandboxer-telemetry", host.work_dir(deadline), "all" if engines else "none"]
    return parse(host.run(argv, deadline, limit=OUTPUT_LIMIT).text)


def parse(text: str) -> dict[str, Any]:
    """The report in the script's answer. Never raises: any text gives every key, with None for what is not there."""
    parts = sections(text)
    files = dict(_files(parts.get("files", [])))
    memory = _memory(files.get("/proc/meminfo", []))
    system, hostname, kernel, architecture = _padded(parts.get("uname", []), 4)
    loads = _padded(_first(files, "/proc/loadavg").split(), 3)
    mount, disk_total, disk_free = _disk(parts.get("disk", []))
    paths, versions = _pairs(parts.get("programs", [])), _pairs(parts.get("versions", []))
    return {
        "hostname": _text(hostname),
        "system": _text(system),
        "kernel": _text(kernel),
        "architecture": _text(architecture),
        "os": _text(_os_name(files.get("/etc/os-release", []))),
        "cpu_count": _cpu_count(_first(files, "/sys/devices/system/cpu/online")),
        "cpu_model": _text(_padded(parts.get("cpu", []), 1)[0].partition(":")[2]),
        "load_1m": _decimal(loads[0]),
        "load_5m": _decimal(loads[1]),
        "load_15m": _decimal(loads[2]),
        "memory_total_bytes": memory.get("MemTotal"),
        "memory_available_bytes": memory.get("MemAvailable"),
        "swap_total_bytes": memory.get("SwapTotal"),
        "swap_free_bytes": memory.get("SwapFree"),
        "disk_mount": mount,
        "disk_total_bytes": disk_total,
        "disk_free_bytes": disk_free,
        "uptime_seconds": _decimal(_padded(_first(files, "/proc/uptime").split(), 1)[0]),
        "engines": [_program(name, paths, versions) for name in ENGINES if paths.get(name)],
        "tools": {name: _program(name, paths, versions) if paths.get(name) else None for name in TOOLS},
    }


def sections(text: str) -> dict[str, list[str]]:
    """The lines below each `@name` line. What a login shell prints before the first one is passed over."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.split("\n"):
        if line.startswith("@") and line[1:].isalnum():
            current = found.setdefault(line[1:], [])
            continue
        current.append(line)
    return found


def _files(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        path, colon, content = line.partition(":")
        if colon:
            found.setdefault(path, []).append(content)
    yield from found.items()


def _first(files: dict[str, list[str]], path: str) -> str:
    return files.get(path, [""])[0]


def _padded(values: list[str], count: int) -> list[str]:
    return (values + [""] * count)[:count]


def _pairs(lines: list[str]) -> dict[str, str]:
    return {name: value.strip() for name, tab, value in (line.partition("\t") for line in lines) if tab}


def _program(name: str, paths: dict[str, str], versions: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "path": _text(paths[name]), "version": _version(versions.get(name, ""))}


def _version(text: str) -> str | None:
    """`Docker version 28.2.2, build e6534b4` as `28.2.2`: the first word that starts with a digit and has a dot."""
    for word in text.removesuffix(".dist-info").removesuffix(".egg-info").split():
        word = word.strip(",;()").removeprefix("v")
        if word[:1].isascii() and word[:1].isdigit() and "." in word:
            return _text(word.partition("-py3")[0])
    return None


def _os_name(lines: list[str]) -> str:
    values = dict(line.partition("=")[::2] for line in lines)
    return (values.get("PRETTY_NAME") or values.get("NAME") or "").strip("\"'")


def _memory(lines: list[str]) -> dict[str, int | None]:
    return {key: _scaled(value, 1024, "kB") for key, _, value in (line.partition(":") for line in lines)}


def _scaled(text: str, factor: int, unit: str = "") -> int | None:
    number = _whole(text.removesuffix(unit).strip())
    return None if number is None else number * factor


def _disk(lines: list[str]) -> tuple[str | None, int | None, int | None]:
    """The mount point, its size and what is free for us, from POSIX `df -Pk`: the last line, counted from the right,
    because a device's name may hold spaces (a mount point's may too: then it is cut)."""
    words = lines[-1].split() if len(lines) > 1 else []
    percent = next((i for i, word in enumerate(words) if word.endswith("%") and i >= 4), None)
    if percent is None:
        return None, None, None
    mounted = " ".join(words[percent + 1 :])
    return _text(mounted), _scaled(words[percent - 3], 1024), _scaled(words[percent - 1], 1024)


def _cpu_count(online: str) -> int | None:
    """How many processors `0-3,8` names."""
    total = 0
    for part in online.split(",") if online else []:
        low, _, high = part.partition("-")
        first, last = _whole(low), _whole(high or low)
        if first is None or last is None or last < first:
            return None
        total += last - first + 1
    return total or None


def _whole(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        return None
    return int(text)


def _decimal(text: str) -> float | None:
    plain = text.replace(".", "", 1)
    if not (plain.isascii() and plain.isdigit() and len(plain) <= _MAX_DIGITS):
        return None
    return float(text)


def _text(text: str) -> str | None:
    """One line that is safe to show: a host's answer must not steer a terminal."""
    kept = "".join(c for c in text.strip() if c.isprintable())[:_MAX_TEXT]
    return kept or None
