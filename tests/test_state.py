"""The state machine as a table."""

from __future__ import annotations

import itertools

import pytest

from sandboxer.errors import Conflict
from sandboxer.state import LIVE, State, Trigger, advance, allowed


def test_destroy_is_accepted_in_every_state() -> None:
    for state in set(State) - {State.ACTIVE}:
        assert advance(state, Trigger.DESTROY) in (State.DESTROYING, State.DESTROYED)


def test_only_a_verified_absence_ends_a_sandbox() -> None:
    ways = [
        (state, signal)
        for state, signal in itertools.product(set(State) - {State.DESTROYED}, Trigger)
        if signal in allowed(state) and advance(state, signal) == State.DESTROYED
    ]
    assert ways == [(State.DESTROYING, Trigger.GONE)]


def test_every_state_can_be_reached_and_left() -> None:
    reached = {State.PROVISIONING}
    for _ in State:
        reached |= {advance(state, signal) for state in reached for signal in allowed(state)}
    assert reached == set(State) - {State.ACTIVE}, "active is derived from leases and never stored"
    assert {state for state in LIVE - {State.ACTIVE} if allowed(state)} == LIVE - {State.ACTIVE}


def test_what_the_table_does_not_name_is_a_conflict() -> None:
    with pytest.raises(Conflict):
        advance(State.FAILED, Trigger.ESTABLISHED)
    with pytest.raises(Conflict):
        advance(State.DESTROYED, Trigger.EXPIRE)
