"""Show what a host says of itself and what the self-check found, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sandboxer.cli.output import facts, paint, say
from sandboxer.timing import format_duration


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


def _join(*parts: Any) -> str | None:
    return ", ".join(str(part) for part in parts if part not in (None, "")) or None


def _load(host: Mapping[str, Any]) -> str | None:
    return f"load {host['load_1m']:g}" if isinstance(host.get("load_1m"), int | float) else None


def _of(free: Any, total: Any) -> str | None:
    if not isinstance(free, int) or not isinstance(total, int):
        return None
    return f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB"
