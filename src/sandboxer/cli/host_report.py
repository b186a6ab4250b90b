"""Show what a host says of itself and what the self-check found, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sandboxer.cli.output import facts, paint, say, table
from sandboxer.timing import format_duration

_BAR = 10
"""How wide a bar is, in characters; plain ones, which every terminal and every locale has."""


def show_report(report: Mapping[str, Any]) -> None:
    """The host in a few lines, then each claim of isolation that was measured."""
    host: Mapping[str, Any] = report.get("host", {})
    say()
    say(paint("host, as seen by the self-check", "1"))
    facts(host_facts(host))
    isolation: Mapping[str, Any] = report.get("isolation", {})
    say()
    say(paint("isolation, as measured from inside", "1"))
    for text in isolation.get("holds", ()):
        say(f"{paint('✓', '32')} {text}")
    for text in isolation.get("unknown", ()):
        say(f"{paint('?', '33')} {text}: could not be measured")


def host_facts(host: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """What a host says of itself, as names and values for people; what it does not tell has None."""
    return [
        ("name", host.get("hostname")),
        ("system", _join(host.get("os"), host.get("kernel"), host.get("architecture"))),
        ("processors", _join(host.get("cpu_count"), host.get("cpu_model"), _load(host))),
        ("memory", _of(host.get("memory_available_bytes"), host.get("memory_total_bytes"))),
        ("disk", _of(host.get("disk_free_bytes"), host.get("disk_total_bytes"))),
        ("up", format_duration(host["uptime_seconds"]) if host.get("uptime_seconds") else None),
        ("engines", programs(host.get("engines") or ())),
    ]


def programs(found: Iterable[Mapping[str, Any]]) -> str:
    """Programs with their versions, such as `podman 4.3.1, podman-compose 1.6.0`."""
    return ", ".join(f"{one['name']} {one.get('version') or ''}".strip() for one in found)


def networks(pools: Iterable[Mapping[str, Any]]) -> str | None:
    """The networks of engines, such as `docker 4 of 31 [#---------] 13%`."""
    told = []
    for pool in pools:
        most = pool.get("most")
        of = f" of {most}{bar(pool['networks'], most)}" if most else ""
        told.append(f"{pool['engine']} {pool['networks']}{of}")
    return ", ".join(told) or None


def show_sandboxes(rows: Iterable[Mapping[str, Any]]) -> None:
    """Our sandboxes on a host with their shares of it."""
    table(
        ["ID", "NAME", "PROFILE", "STATE", "PROCESSES", "CPU", "MEMORY"],
        [
            [
                row["id"],
                row.get("name") or "",
                row["profile"],
                row["state"],
                _text(row.get("processes")),
                _share(_seconds(row.get("cpu_s")), row.get("cpu_share")),
                _share(_mebibytes(row.get("memory_bytes")), row.get("memory_share")),
            ]
            for row in rows
        ],
        empty="none of our sandboxes is there",
    )


def _text(value: Any) -> str:
    return "?" if value is None else str(value)


def _seconds(value: Any) -> str:
    return "?" if value is None else f"{value:.1f} s"


def _mebibytes(value: Any) -> str:
    return "?" if value is None else f"{value / 2**20:.0f} MiB"


def _share(text: str, share: Any) -> str:
    return text if share is None else f"{text}{bar(share, 1)}"


def _join(*parts: Any) -> str | None:
    return ", ".join(str(part) for part in parts if part not in (None, "")) or None


def _load(host: Mapping[str, Any]) -> str | None:
    load, count = host.get("load_1m"), host.get("cpu_count")
    if not isinstance(load, int | float):
        return None
    return f"load {load:g}{bar(load, count)}"


def _of(free: Any, total: Any) -> str | None:
    if not isinstance(free, int) or not isinstance(total, int):
        return None
    return f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB{bar(total - free, total)}"


def bar(used: float, total: Any) -> str:
    """How much of something is in use, as ` [####------] 40%`; a load may be over it. Nothing without a total. Pure."""
    if not isinstance(total, int | float) or total <= 0:
        return ""
    share = max(0.0, used / total)
    full = min(_BAR, round(share * _BAR))
    return f" [{'#' * full}{'-' * (_BAR - full)}] {share:.0%}"
