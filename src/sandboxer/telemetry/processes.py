"""What sandboxes use of a host now: processor time and memory of their processes, from /proc (docs/host-telemetry.md).

Two looks a moment apart in one round trip, constant text. A process belongs to the sandbox in whose process namespace
it is; where that may not be seen (not root, and the process may not be traced), to the one whose first process is above
it. Pure but for `sandbox_usage`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sandboxer.hosts.base import Host
from sandboxer.models import Value
from sandboxer.telemetry import sections
from sandboxer.timing import Deadline

OUTPUT_LIMIT: Final = 16 * 1024 * 1024
"""How many bytes of answer are taken, at most: some 500 for each process of the host."""
_DIGITS: Final = 19

# A process may put newlines into its own name: grep puts the file's name ahead of each line, so that none can pass for
# another's. The second look is what makes a share of a sum.
_SCRIPT: Final = r"""
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH
LC_ALL=C; export LC_ALL
echo "@units"; getconf CLK_TCK; getconf PAGESIZE
echo "@own"; readlink /proc/self/ns/pid
echo "@namespaces"; ls -l /proc/[0-9]*/ns/pid 2>/dev/null
for sbx_look in first last; do
  echo "@uptime$sbx_look"; cat /proc/uptime
  echo "@stat$sbx_look"; grep -Has "" /proc/[0-9]*/stat
  [ $sbx_look = last ] || sleep 0.3
done
echo "@end"
"""


class SandboxUsage(Value, frozen=True, kw_only=True):
    """What the processes of a sandbox use: how many there are, the processor time that they have used so far (seconds),
    how many processors they keep busy now, and their memory; pages that processes share are counted for each."""

    processes: int
    cpu_s: float
    cpu_busy: float | None
    memory_bytes: int


class _Process(Value, frozen=True, kw_only=True):
    parent: int
    ticks: int
    """With those of its children that have ended."""
    pages: int


def sandbox_usage(host: Host, roots: Mapping[str, Sequence[int]], deadline: Deadline) -> dict[str, SandboxUsage | None]:
    """What each sandbox uses, by its id; `roots` are the first processes of its process namespaces. None where there is
    nothing to be seen. One round trip; raises what `Host.run` raises."""
    if not any(roots.values()):
        return dict.fromkeys(roots)
    done = host.run(["sh", "-c", _SCRIPT, "sandboxer-usage"], deadline, limit=OUTPUT_LIMIT)
    return usage_in(done.text, roots)


def usage_in(text: str, roots: Mapping[str, Sequence[int]]) -> dict[str, SandboxUsage | None]:
    """The usage in the script's answer. Never raises: what is missing or malformed is None."""
    parts = sections(text)
    units = [_whole(line) for line in parts.get("units", [])][:2]
    ticks, page = units if len(units) == 2 else (None, None)
    first, last = (_processes(parts.get(f"stat{look}", [])) for look in ("first", "last"))
    if not ticks or not page or not last or "end" not in parts:
        return dict.fromkeys(roots)
    seconds = _uptime(parts.get("uptimelast", [])) - _uptime(parts.get("uptimefirst", []))
    own = "".join(parts.get("own", [])[:1]).strip()
    namespaces = _namespaces(parts.get("namespaces", []))
    found: dict[str, SandboxUsage | None] = {}
    for sandbox_id, tops in roots.items():
        members = _members(last, namespaces, tops, own=own)
        if not members:
            found[sandbox_id] = None
            continue
        used = sum(last[pid].ticks for pid in members)
        # one that ended in between is counted by who has waited for it
        before = sum(first[pid].ticks for pid in _members(first, namespaces, tops, own=own))
        found[sandbox_id] = SandboxUsage(
            processes=len(members),
            cpu_s=round(used / ticks, 2),
            cpu_busy=round(max(0, used - before) / ticks / seconds, 2) if first and seconds > 0 else None,
            memory_bytes=sum(last[pid].pages for pid in members) * page,
        )
    return found


def _members(
    processes: Mapping[int, _Process], namespaces: Mapping[int, str], tops: Sequence[int], *, own: str
) -> set[int]:
    # a container that shares the host's processes has a namespace that says nothing
    theirs = {namespaces[top] for top in tops if top in namespaces} - {own}
    members = {pid for pid in processes if namespaces.get(pid) in theirs} | processes.keys() & set(tops)
    children: dict[int, list[int]] = {}
    for pid, process in processes.items():
        children.setdefault(process.parent, []).append(pid)
    rest = list(members)
    while rest:
        below = [pid for pid in children.get(rest.pop(), []) if pid not in members]
        members.update(below)
        rest += below
    return members


def _namespaces(lines: Sequence[str]) -> dict[int, str]:
    """By process, from lines of `ls -l` such as `... /proc/12/ns/pid -> pid:[4026531836]`."""
    found = {}
    for line in lines:
        path, arrow, target = line.rpartition(" -> ")
        pid = _whole(path.rpartition("/proc/")[2].partition("/")[0]) if arrow else None
        if pid is not None:
            found[pid] = target.strip()
    return found


def _processes(lines: Sequence[str]) -> dict[int, _Process]:
    """By number, from lines such as `/proc/12/stat:12 (name) S 1 ...`. The name may hold anything: what counts stands
    behind the last parenthesis of the last line."""
    texts: dict[int, str] = {}
    for line in lines:
        path, colon, content = line.partition(":")
        pid = _whole(path.removeprefix("/proc/").removesuffix("/stat")) if colon else None
        if pid is not None:
            texts[pid] = texts.get(pid, "") + content
    found = {}
    for pid, text in texts.items():
        words = text.rpartition(")")[2].split()
        try:
            parent, user, system, ended_user, ended_system, pages = (
                int(words[place]) for place in (1, 11, 12, 13, 14, 21)
            )
        except (IndexError, ValueError):
            continue
        if words[0] not in ("Z", "X"):
            ticks = user + system + ended_user + ended_system
            found[pid] = _Process(parent=parent, ticks=ticks, pages=pages)
    return found


def _uptime(lines: Sequence[str]) -> float:
    word = next(iter(" ".join(lines).split()), "")
    whole, _, fraction = word.partition(".")
    seconds, parts = _whole(whole), _whole(fraction or "0")
    return 0.0 if seconds is None or parts is None else float(f"{seconds}.{fraction or 0}")


def _whole(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None
