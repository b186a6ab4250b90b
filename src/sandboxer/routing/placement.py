"""Choose the hosts that a request may be placed on, in order, and say why."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from sandboxer.models import Decision

LOCAL = "local"


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts to try, preferred first; `decisions` tells which listed ones were passed over; `reason` why these."""

    hosts: tuple[str, ...]
    reason: str
    decisions: tuple[Decision, ...] = ()


def place(
    *,
    extension: str,
    flag: str | None,
    environment: str | None,
    listed: Sequence[str],
    configured: Collection[str],
    default: str | None,
) -> Placement:
    """`--host`, else SANDBOXER_HOST, else the profile's hosts that are configured, else the default, else this machine.

    A listed host that is not configured is passed over; when some are configured, only those are tried: a dead host
    never silently becomes this machine."""
    if flag:
        return Placement(hosts=(flag,), reason="asked for")
    if environment:
        return Placement(hosts=(environment,), reason="SANDBOXER_HOST")
    known = tuple(host for host in listed if host in configured or host == LOCAL)
    passed_over = tuple(
        Decision(
            extension=extension,
            outcome="skipped",
            reason=f"host {host} is not configured",
            estimate_usd=None,
            host=host,
        )
        for host in listed
        if host not in known
    )
    if known:
        reason = "only candidate" if len(known) == 1 else "preferred by the profile"
        return Placement(hosts=known, reason=reason, decisions=passed_over)
    if default:
        return Placement(hosts=(default,), reason="defaults.host", decisions=passed_over)
    return Placement(hosts=(LOCAL,), reason="only candidate", decisions=passed_over)
