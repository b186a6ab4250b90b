"""Report what a sweep did, or would do, and what it could not settle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from sandboxer.errors import Conflict, Internal, SandboxerError
from sandboxer.models import Value
from sandboxer.models.prepared import prepare

LANES = 4
"""How many things a sweep does at once on one host or provider."""
MAX_THREADS = 128

T = TypeVar("T")
R = TypeVar("R")

ActionKind = Literal[
    "expire", "destroy", "fail", "take-back", "remove", "fund", "settle", "shorten", "note", "warn", "stop"
]
ActionOutcome = Literal["planned", "done", "failed", "skipped"]


class Action(Value, frozen=True, kw_only=True):
    """One thing that a sweep does, or would do."""

    sandbox_id: str | None
    action: ActionKind
    why: str
    host: str | None
    extension: str
    outcome: ActionOutcome = "planned"
    error: dict[str, Any] | None = None
    snapshot_id: str | None = None
    """The snapshot that it is done to, of that sandbox."""


class Remaining(Value, frozen=True, kw_only=True):
    """What a sweep could not settle."""

    why: str
    host: str | None
    extension: str
    sandbox_id: str | None = None
    error: dict[str, Any] | None = None
    snapshot_id: str | None = None


class Located(Protocol):
    """Anything that is somewhere."""

    @property
    def host(self) -> str | None: ...

    @property
    def extension(self) -> str: ...


def location_lane(item: Located) -> str:
    """What hangs together with it: its host, else its provider."""
    return item.host or item.extension


def location_of(item: Located) -> str:
    """Where it is, for people."""
    return item.extension if item.host is None else f"{item.extension} on {item.host}"


class Report(Value, frozen=True, kw_only=True):
    """What a sweep did (or, when `applied` is false, would do), and what remains."""

    actions: list[Action]
    remaining: list[Remaining]
    applied: bool = False


def run_in_lanes(items: Sequence[T], do: Callable[[T], R], *, lane: Callable[[T], str]) -> list[R]:
    """Do it for every item; order is kept. Each `lane` (a host, or a provider) is a few threads of its own, so that one
    that hangs holds up only what is on it (promise 23)."""
    if len(items) <= 1:
        return [do(item) for item in items]
    from collections import deque
    from concurrent.futures import ThreadPoolExecutor

    prepare()
    queues: dict[str, deque[int]] = {}
    for position, item in enumerate(items):
        queues.setdefault(lane(item), deque()).append(position)
    done: dict[int, R] = {}

    def drain(queue: deque[int]) -> None:
        while True:
            try:
                position = queue.popleft()
            except IndexError:
                return
            done[position] = do(items[position])

    # One thread for every lane first, then the second ones: a cap on threads must not leave one without any.
    lanes = [queue for turn in range(LANES) for queue in queues.values() if turn < len(queue)]
    with ThreadPoolExecutor(max_workers=min(MAX_THREADS, len(lanes))) as pool:
        list(pool.map(drain, lanes))
    return [done[position] for position in range(len(items))]


def caught(do: Callable[[], R], otherwise: Callable[[SandboxerError], R]) -> R:
    """What `do` answers, or what its failure comes to. What goes wrong with one thing, a bug in an adapter of somebody
    else's included, must not keep a sweep from all the others, nor from telling what it did."""
    try:
        return do()
    except SandboxerError as error:
        return otherwise(error)
    except Exception as error:  # noqa: BLE001 - see above
        return otherwise(Internal(f"{type(error).__name__}: {error}"))


def failed_action(action: Action, error: SandboxerError) -> Action:
    """An action that could not be done. A conflict is somebody else at work on the same sandbox, who has precedence."""
    if isinstance(error, Conflict):
        return msgspec.structs.replace(action, outcome="skipped", why=error.message)
    return msgspec.structs.replace(action, outcome="failed", error=error.document())


def sweep_report(done: list[Action]) -> Report:
    """The report of an applied sweep; what failed remains."""
    remaining = [
        Remaining(
            sandbox_id=action.sandbox_id,
            why=str((action.error or {}).get("message", action.why)),
            host=action.host,
            extension=action.extension,
            error=action.error,
            snapshot_id=action.snapshot_id,
        )
        for action in done
        if action.outcome == "failed"
    ]
    return Report(actions=done, remaining=remaining, applied=True)
