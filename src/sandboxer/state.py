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


class Signal(StrEnum):
    """What can happen to a sandbox."""

    ESTABLISHED = "established"  # the backend confirmed that it can be reached
    FAIL = "fail"  # establishment failed, or the backend lost it
    STOPPED = "stopped"  # the backend keeps it and does not run it, whoever did that
    STARTED = "started"  # the backend runs it (again)
    EXPIRE = "expire"  # its TTL is over
    DESTROY = "destroy"  # somebody wants it gone
    GONE = "gone"  # its absence was verified


_TABLE: dict[State, dict[Signal, State]] = {
    State.PROVISIONING: {
        Signal.ESTABLISHED: State.READY,
        Signal.FAIL: State.FAILED,
        Signal.EXPIRE: State.EXPIRED,
        Signal.DESTROY: State.DESTROYING,
    },
    State.READY: {
        Signal.STOPPED: State.STOPPED,
        Signal.STARTED: State.READY,
        Signal.FAIL: State.FAILED,
        Signal.EXPIRE: State.EXPIRED,
        Signal.DESTROY: State.DESTROYING,
    },
    State.STOPPED: {
        Signal.STOPPED: State.STOPPED,
        Signal.STARTED: State.READY,
        Signal.FAIL: State.FAILED,
        Signal.EXPIRE: State.EXPIRED,
        Signal.DESTROY: State.DESTROYING,
    },
    State.EXPIRED: {Signal.DESTROY: State.DESTROYING, Signal.EXPIRE: State.EXPIRED},
    State.FAILED: {Signal.DESTROY: State.DESTROYING, Signal.EXPIRE: State.EXPIRED},
    State.DESTROYING: {Signal.DESTROY: State.DESTROYING, Signal.GONE: State.DESTROYED},
    State.DESTROYED: {Signal.DESTROY: State.DESTROYED},
}

LIVE: frozenset[State] = frozenset(State) - {State.DESTROYED}
USABLE: frozenset[State] = frozenset({State.READY, State.ACTIVE})
ESTABLISHED: frozenset[State] = USABLE | {State.STOPPED}
"""Those that were ready, and have not begun to end."""


def advance(state: State, signal: Signal) -> State:
    """The state that follows `state` when `signal` happens; raises Conflict where the table has no entry."""
    after = _TABLE.get(state, {}).get(signal)
    if after is None:
        raise Conflict(
            f"a sandbox that is {state} cannot take '{signal}'",
            hint="run `sandboxer get ID` to see its state",
        )
    return after


def allowed(state: State) -> frozenset[Signal]:
    """The signals that `state` accepts."""
    return frozenset(_TABLE.get(state, {}))
