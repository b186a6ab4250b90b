"""Everything about states: the states, what may happen to them, and one table that says what follows.

`active` is derived (ready, with a lease held) and never stored; so it has no row of its own.
"""

from __future__ import annotations

from enum import StrEnum

from sandboxer.errors import Conflict


class State(StrEnum):
    """Where a sandbox is in its life (contract §4)."""

    PROVISIONING = "provisioning"
    READY = "ready"
    ACTIVE = "active"
    STOPPED = "stopped"
    EXPIRED = "expired"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"
    FAILED = "failed"


class Trigger(StrEnum):
    """What can happen to a sandbox."""

    ESTABLISHED = "established"  # the backend confirmed that it can be reached
    FAIL = "fail"  # establishment failed, or the backend lost it
    STOPPED = "stopped"  # the backend keeps it and does not run it, whoever did that
    STARTED = "started"  # the backend runs it (again)
    EXPIRE = "expire"  # its TTL is over
    DESTROY = "destroy"  # somebody wants it gone
    GONE = "gone"  # its absence was verified


_TABLE: dict[State, dict[Trigger, State]] = {
    State.PROVISIONING: {
        Trigger.ESTABLISHED: State.READY,
        Trigger.FAIL: State.FAILED,
        Trigger.EXPIRE: State.EXPIRED,
        Trigger.DESTROY: State.DESTROYING,
    },
    State.READY: {
        Trigger.STOPPED: State.STOPPED,
        Trigger.STARTED: State.READY,
        Trigger.FAIL: State.FAILED,
        Trigger.EXPIRE: State.EXPIRED,
        Trigger.DESTROY: State.DESTROYING,
    },
    State.STOPPED: {
        Trigger.STOPPED: State.STOPPED,
        Trigger.STARTED: State.READY,
        Trigger.FAIL: State.FAILED,
        Trigger.EXPIRE: State.EXPIRED,
        Trigger.DESTROY: State.DESTROYING,
    },
    State.EXPIRED: {Trigger.DESTROY: State.DESTROYING, Trigger.EXPIRE: State.EXPIRED},
    State.FAILED: {Trigger.DESTROY: State.DESTROYING, Trigger.EXPIRE: State.EXPIRED},
    State.DESTROYING: {Trigger.DESTROY: State.DESTROYING, Trigger.GONE: State.DESTROYED},
    State.DESTROYED: {Trigger.DESTROY: State.DESTROYED},
}

LIVE: frozenset[State] = frozenset(State) - {State.DESTROYED}
USABLE: frozenset[State] = frozenset({State.READY, State.ACTIVE})
ESTABLISHED: frozenset[State] = USABLE | {State.STOPPED}
"""Those that were ready, and have not begun to end."""


def advance(state: State, trigger: Trigger) -> State:
    """The state that follows `state` when `trigger` happens; raises Conflict where the table has no entry."""
    after = _TABLE.get(state, {}).get(trigger)
    if after is None:
        raise Conflict(
            f"a sandbox that is {state} cannot take '{trigger}'",
            hint="run `sandboxer get ID` to see its state",
        )
    return after


def allowed(state: State) -> frozenset[Trigger]:
    """The triggers that `state` accepts."""
    return frozenset(_TABLE.get(state, {}))
