"""The one table of what follows from a failed attempt to create a sandbox."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from sandboxer.errors import (
    BackendError,
    Conflict,
    Denied,
    Internal,
    Invalid,
    NotConfigured,
    SandboxerError,
    Timeout,
    Unavailable,
)
from sandboxer.manager.establish.failure_policy import (
    POLICIES,
    Cause,
    Circumstances,
    Cleanup,
    Left,
    Phase,
    cause_of,
    cleanup_for,
    left_after,
    may_continue,
    step_after,
)

FREE = Circumstances(last=False, expired=False, kept=False, routed=True)


def knowing(error: SandboxerError) -> SandboxerError:
    error.made_nothing = True
    return error


@pytest.mark.parametrize(
    ("error", "phase", "cause"),
    [
        (KeyboardInterrupt(), "provision", "interrupted"),
        (SystemExit(143), "wait", "interrupted"),
        (Conflict("taken"), "provision", "caller"),
        (knowing(Invalid("no address")), "provision", "unsent"),
        (Internal("a bug"), "wait", "caller"),
        (ZeroDivisionError(), "provision", "caller"),
        (Unavailable("no route to the host"), "reach", "host-silent"),
        (Denied("another host key"), "reach", "locked-out"),
        (BackendError("no capacity"), "provision", "failed"),
        (BackendError("it ended with 1"), "wait", "failed"),
        (Unavailable("silent"), "provision", "lost"),
        (Timeout("late"), "provision", "lost"),
        (Unavailable("cut off", outcome="unknown"), "provision", "lost"),
        (BackendError("answered with 500", outcome="unknown"), "provision", "lost"),
        (Timeout("late"), "wait", "failed"),
        (Unavailable("refused", outcome="failed"), "provision", "locked-out"),
        (Denied("bad key"), "provision", "locked-out"),
        (NotConfigured("no key"), "provision", "locked-out"),
        (knowing(Unavailable("no daemon")), "provision", "locked-out"),
    ],
    ids=repr,
)
def test_a_failure_has_one_cause(error: BaseException, phase: Phase, cause: str) -> None:
    for provider, lost in ((True, "lost-at-provider"), (False, "lost-on-host")):
        found = cause_of(error, phase=phase, provider=provider, saved=False)
        assert found == (lost if cause == "lost" else cause)


def test_a_refusal_after_something_was_saved_counts_only_with_the_extensions_word() -> None:
    """A handle that was saved says that something may have been made."""
    assert cause_of(Denied("bad key"), phase="provision", provider=True, saved=True) == "failed"
    assert cause_of(knowing(Denied("bad key")), phase="provision", provider=True, saved=True) == "locked-out"


def test_a_wrong_request_is_taken_back_where_something_was_saved_before() -> None:
    assert cause_of(knowing(Invalid("no address")), phase="wait", provider=True, saved=True) == "caller"


def test_every_cause_has_a_row_and_every_cleanup_is_followed_by_something() -> None:
    assert set(POLICIES) == set(get_args(Cause))
    assert {policy.cleanup for policy in POLICIES.values()} == set(get_args(Cleanup))
    for policy in POLICIES.values():
        assert "nothing" in policy.then
        assert policy.cleanup == "none" or {"no-answer", "unclear"} <= set(policy.then)


def test_nothing_else_is_begun_where_it_cannot_be_said_what_is_there() -> None:
    """But where the backend lets nobody in, and nothing can have been made."""
    lefts: tuple[Left, ...] = ("no-answer", "unclear", "found")
    causes: tuple[Cause, ...] = get_args(Cause)
    moved = {(cause, left) for cause, left in product(causes, lefts) if step_after(cause, left) == "next"}
    assert moved == {("locked-out", "no-answer")}


def test_only_a_whole_sandbox_of_a_provider_is_adopted() -> None:
    causes: tuple[Cause, ...] = get_args(Cause)
    lefts: tuple[Left, ...] = get_args(Left)
    adopted = {(cause, left) for cause, left in product(causes, lefts) if step_after(cause, left) == "adopt"}
    assert adopted == {("lost-at-provider", "found")}


def test_what_the_caller_got_wrong_and_an_interrupt_never_move_on() -> None:
    assert {cause for cause in POLICIES if not may_continue(cause, FREE)} == {"caller", "unsent", "interrupted"}


@pytest.mark.parametrize("kept_from", ["last", "expired", "kept"])
def test_what_keeps_a_create_from_its_next_candidate(kept_from: str) -> None:
    circumstances = Circumstances(**{"last": False, "expired": False, "kept": False, "routed": True, kept_from: True})
    assert not any(may_continue(cause, circumstances) for cause in POLICIES)


def test_with_one_extension_only_a_silent_host_gives_way() -> None:
    alone = Circumstances(last=False, expired=False, kept=False, routed=False)
    assert {cause for cause in POLICIES if may_continue(cause, alone)} == {"host-silent"}


@pytest.mark.parametrize("phase", ["reach", "prepare"])
def test_before_the_backend_is_asked_there_is_nothing_to_clean_up(phase: Phase) -> None:
    assert {cleanup_for(cause, phase) for cause in POLICIES} == {"none"}


@pytest.mark.parametrize(
    ("rest", "left"),
    [
        (None, "nothing"),
        (Denied("still"), "no-answer"),
        (Unavailable("still"), "no-answer"),
        (Timeout("still"), "no-answer"),
        (BackendError("a volume is in use"), "unclear"),
        (Internal("a bug in a teardown"), "unclear"),
    ],
    ids=repr,
)
def test_what_a_cleanup_tells_of_what_is_left(rest: BaseException | None, left: Left) -> None:
    assert left_after(rest) == left
