"""Wait until a sandbox is ready, stopped or destroyed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sandboxer.errors import Conflict, Timeout
from sandboxer.manager.wait import WAITED_FOR, prospect, wait_for
from sandboxer.state import State, Trigger, advance, allowed
from sandboxer.timing import Deadline
from tests.installations import create, installed
from tests.manager.test_stopped_billing import Hotel


def reachable(state: State) -> set[State]:
    """The states that the table lets follow, however many steps later."""
    found, new = {state}, {state}
    while new:
        new = {advance(each, trigger) for each in new for trigger in allowed(each)} - found
        found |= new
    return found


@pytest.mark.parametrize("wanted", WAITED_FOR)
@pytest.mark.parametrize("state", [state for state in State if state != State.ACTIVE])
def test_what_the_table_of_states_rules_out_is_not_waited_for(state: State, wanted: str) -> None:
    if state == wanted:
        assert prospect(state, wanted) == "reached"
        return
    assert (prospect(state, wanted) == "never") == (State(wanted) not in reachable(state))


def test_who_waits_sees_a_stop_and_a_start_of_somebody_else(tmp_path: Path) -> None:
    hotel = Hotel(tmp_path)
    record, services = hotel.create(), hotel.manager.services
    verbs = {"stopped": hotel.manager.stop, "ready": hotel.manager.start}
    for wanted in verbs:
        pauses: list[float] = []

        def sleep(seconds: float, pauses: list[float] = pauses, wanted: str = wanted) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                verbs[wanted](record.id)

        assert wait_for(services, record.id, wanted, Deadline(60), sleep).state == wanted
        assert len(pauses) == 3
        assert hotel.manager.wait(record.id, wanted).state == wanted, "it is so already"


def test_a_failure_while_waiting_for_ready_is_told_at_once(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here)
    error = {"code": "backend_error", "message": "its disk is full"}
    here.manager.services.move(record.id, Trigger.FAIL, edit=lambda now: msgspec.structs.replace(now, error=error))
    with pytest.raises(Conflict, match="failed, and will not be ready: its disk is full") as caught:
        here.manager.wait(record.id, "ready")
    assert f"sandboxer get {record.id}" in caught.value.hint


def test_a_wait_has_an_end(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here)
    with pytest.raises(Timeout, match="to be destroyed: it is ready"):
        wait_for(here.manager.services, record.id, "destroyed", Deadline(0), lambda _seconds: None)
