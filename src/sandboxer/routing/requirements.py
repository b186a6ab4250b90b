"""Check what a profile requires against what is known of a candidate. (Network, processors, memory, disk and GPU are
the extension's own to fit, since only it knows which options give them.)"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from decimal import Decimal
from typing import Final

import msgspec

from sandboxer.errors import Invalid
from sandboxer.models import IsolationClass, Requirements

_NOTHING: Final = Requirements()
_SIZES: Final = ("vcpu", "memory_gib", "disk_gib")
_GPU: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._!+-]{0,63}(:[1-9][0-9]{0,2})?", re.ASCII)
ISOLATION_STRENGTH: Final[dict[IsolationClass, int]] = {
    "remote": 0, "none": 0, "process": 1, "namespace": 2, "container": 3, "vm": 4, "microvm": 5,
}  # fmt: skip
"""How strongly each class separates from the host. Of `remote` nobody knows: it meets no floor but `none`."""


def check_requirements(require: Requirements, known: Collection[str], source: str) -> None:
    """Refuse what no extension could ever have; `known` are the names of capabilities. Raises Invalid."""
    for name in require.capabilities:
        if name not in known:
            raise Invalid(
                f"{source}: require.capabilities has {name[:80]!r}, which is no capability",
                hint=f"the capabilities: {', '.join(known)}",
            )
    if require.isolation == "remote":
        raise Invalid(
            f"{source}: require.isolation cannot be 'remote', which says nothing of a strength",
            hint="use none, process, namespace, container, vm or microvm",
        )
    for name in _SIZES:
        size = getattr(require, name)
        if size is not None and not (math.isfinite(size) and size >= 0):
            raise Invalid(f"{source}: require.{name} is {size}, which is no amount", hint="give a number, such as 2")
    if require.gpu is not None and not _GPU.fullmatch(require.gpu):
        raise Invalid(
            f"{source}: require.gpu is {require.gpu[:80]!r}, which is no model with an optional count",
            hint="write it like T4 or H100:2",
        )


class ParsedRequirements(msgspec.Struct, frozen=True, kw_only=True):
    """Requirements that were read once, to be held against many candidates. Prices are in US dollars."""

    require: Requirements
    capabilities: frozenset[str]
    floor: int
    hourly: Decimal | None
    total: Decimal | None


def parse_requirements(require: Requirements) -> ParsedRequirements | None:
    """What there is to check; None when nothing is required."""
    if require == _NOTHING:
        return None
    return ParsedRequirements(
        require=require,
        capabilities=frozenset(require.capabilities),
        floor=0 if require.isolation is None else ISOLATION_STRENGTH[require.isolation],
        hourly=None if require.max_usd_per_hour is None else Decimal(require.max_usd_per_hour),
        total=None if require.max_usd is None else Decimal(require.max_usd),
    )


def unmet(
    demands: ParsedRequirements,
    *,
    capabilities: frozenset[str],
    isolation: IsolationClass,
    usd_per_hour: Decimal | None,
    estimated_usd: Decimal | None,
) -> str | None:
    """What a candidate does not meet, in words; None when it meets all. A price that is not known is over every
    limit."""
    if not demands.capabilities <= capabilities:
        return f"it cannot {', '.join(sorted(demands.capabilities - capabilities))}"
    if ISOLATION_STRENGTH[isolation] < demands.floor:
        return below_isolation_floor(demands.require, isolation)
    if demands.hourly is not None and (usd_per_hour is None or usd_per_hour > demands.hourly):
        return _too_dear(usd_per_hour, demands.hourly, "an hour")
    if demands.total is not None and (estimated_usd is None or estimated_usd > demands.total):
        return _too_dear(estimated_usd, demands.total, "for its whole lifetime")
    return None


def below_isolation_floor(require: Requirements, isolation: IsolationClass) -> str | None:
    """Why an isolation class is below the floor; None when it is not."""
    floor = require.isolation
    if floor is None or ISOLATION_STRENGTH[isolation] >= ISOLATION_STRENGTH[floor]:
        return None
    return f"its isolation is {isolation!r}, and at least {floor!r} is required"


def _too_dear(usd: Decimal | None, limit: Decimal, what: str) -> str:
    if usd is None:
        return f"its price is not known, and at most {limit} USD {what} is allowed"
    return f"it costs {usd:f} USD {what}, and at most {limit} is allowed"
