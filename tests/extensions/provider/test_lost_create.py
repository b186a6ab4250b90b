"""The table of lost creates."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from sandboxer.errors import BackendError, Conflict, Denied, SandboxerError, Timeout, Unavailable
from sandboxer.extensions.provider.lost_create import (
    TABLE,
    Look,
    Trouble,
    Verdict,
    needs_look,
    settle,
    trouble_of,
    with_outcome,
)


def test_every_case_is_in_the_table() -> None:
    assert set(TABLE) == set(itertools.product(get_args(Trouble), get_args(Look)))
    assert {verdict for both in TABLE.values() for verdict in both} == set(get_args(Verdict))


@pytest.mark.parametrize(("trouble", "look"), TABLE)
@pytest.mark.parametrize("again", [True, False])
def test_what_holds_for_every_row(trouble: Trouble, look: Look, again: bool) -> None:
    verdict = settle(trouble, look, again=again)
    assert (verdict == "conflict") == (look == "others"), "somebody else's is neither used nor removed"
    assert (verdict in ("adopt", "remove")) == (look == "ours"), "what is ours is used or taken away, never left"
    if look == "unseen":
        assert verdict in ("retry", "unknown"), "what was not seen is never said not to exist"
    if verdict == "failed":
        assert look == "nothing"
    if not again:
        assert verdict != "retry"


@pytest.mark.parametrize(
    ("error", "over", "trouble"),
    [
        (Unavailable("cut", outcome="unknown"), False, "lost"),
        (Unavailable("502", outcome="unknown", details={"status": 502}), False, "lost"),
        (Unavailable("504", outcome="unknown", details={"status": 504}), False, "slow"),
        (Timeout("no answer", outcome="unknown"), False, "slow"),
        (Timeout("no answer", outcome="unknown"), True, "late"),
        (BackendError("there", details={"status": 409}), False, "taken"),
        (Conflict("there"), False, "taken"),
        (Unavailable("slow down", details={"status": 429}), False, "busy"),
        (BackendError("as many as you may have", details={"status": 429}), False, "refused"),
        (Unavailable("no route", outcome="failed"), False, "refused"),
        (Denied("no"), True, "refused"),
    ],
)
def test_how_a_try_ended(error: SandboxerError, over: bool, trouble: Trouble) -> None:
    assert trouble_of(error, over=over) == trouble


def test_a_definite_no_needs_a_look_only_after_a_doubt() -> None:
    assert [needs_look("refused", doubt=doubt) for doubt in (False, True)] == [False, True]
    assert [needs_look("busy", doubt=doubt) for doubt in (False, True)] == [False, True]
    assert needs_look("lost", doubt=False)


def test_an_outcome_that_was_settled_is_stated() -> None:
    error = with_outcome(Unavailable("lost", outcome="unknown"), "failed")
    assert (error.outcome, error.outcome_stated, error.made_nothing) == ("failed", True, True)
    assert not with_outcome(error, "unknown").made_nothing
