"""What a sweep did, or would do, and what it could not settle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from sandboxer.models import Value

WORKERS = 8

Does = Literal["expire", "destroy", "fail", "take-back", "remove"]
Ended = Literal["planned", "done", "failed", "skipped"]


class Action(Value, frozen=True, kw_only=True):
    """One thing that a sweep does, or would do."""

    sandbox_id: str | None
    action: Does
    why: str
    host: str
    extension: str
    outcome: Ended = "planned"
    error: dict[str, Any] | None = None


class Remaining(Value, frozen=True, kw_only=True):
    """What a sweep could not settle."""

    why: str
    host: str
    extension: str
    sandbox_id: str | None = None
    error: dict[str, Any] | None = None


class Report(Value, frozen=True, kw_only=True):
    """What a sweep did (or, when `applied` is false, would do), and what remains."""

    actions: list[Action]
    remaining: list[Remaining]
    applied: bool = False


def each(items: Sequence[Any], do: Callable[[Any], Any]) -> list[Any]:
    """Do it for every item, a few at a time, so that one dead host does not hold up the others; order is kept."""
    if len(items) <= 1:
        return [do(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(WORKERS, len(items))) as pool:
        return list(pool.map(do, items))


def report_of(done: list[Action]) -> Report:
    """The report of an applied sweep; what failed remains."""
    remaining = [
        Remaining(
            sandbox_id=action.sandbox_id,
            why=str((action.error or {}).get("message", action.why)),
            host=action.host,
            extension=action.extension,
            error=action.error,
        )
        for action in done
        if action.outcome == "failed"
    ]
    return Report(actions=done, remaining=remaining, applied=True)
