"""Routes while a create runs: which failure moves on, and what is left of what failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sandboxer.errors import (
    BackendError,
    Conflict,
    Denied,
    Invalid,
    NotConfigured,
    NotFound,
    SandboxerError,
    Timeout,
    Unavailable,
)
from sandboxer.extensions.base import Spec
from sandboxer.hosts.base import Host
from sandboxer.hosts.local import LocalHost
from sandboxer.manager import SandboxManager
from sandboxer.models import HostSettings, Request
from sandboxer.state import State
from sandboxer.testing.fake import POINTS
from sandboxer.timing import Deadline
from tests.manager.routed import CLOUD, OWN, Backend, Bed, metered, reasons, told

CREATE_POINTS = [point for point in POINTS if point.startswith("provision")] + ["wait_ready"]


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path, {"a": CLOUD, "b": CLOUD, "c": OWN})


def test_the_first_that_can_serves_and_the_others_stand_by(bed: Bed) -> None:
    record = bed.create()
    assert (record.extension, record.host) == ("ext.a", None)
    assert told(record.route.decisions) == [("a", "chosen"), ("b", "standby"), ("c", "standby")]
    document = bed.here.manager.document(record)
    assert document["placement"] == {"host": None}
    assert [one["outcome"] for one in document["route"]["decisions"]] == ["chosen", "standby", "standby"]
    bed.here.manager.destroy(record.id)
    assert bed.left() == []


@pytest.mark.parametrize("point", CREATE_POINTS)
def test_a_definite_failure_is_cleaned_up_and_the_next_one_serves(bed: Bed, point: str) -> None:
    """Promise 1: nothing is left of the one that failed."""
    bed.faults["a"].plan[point] = BackendError("no capacity")
    record = bed.create()
    assert record.extension == "ext.b"
    assert told(record.route.decisions) == [("a", "failed"), ("b", "chosen"), ("c", "standby")]
    assert reasons(record)["a"] == "no capacity"
    assert reasons(record)["b"] == "the one before it failed"
    assert bed.left() == [f"b/sbx-{record.id}"]
    bed.here.manager.destroy(record.id)
    assert bed.left() == []


def test_every_candidate_has_its_turn_and_the_last_error_speaks_for_all(bed: Bed) -> None:
    for name in "abc":
        bed.faults[name].plan["provision"] = BackendError(f"{name} is full")
    with pytest.raises(BackendError) as caught:
        bed.create()
    for name in "abc":
        assert f"ext.{name}" in caught.value.message
        assert f"{name} is full" in caught.value.message
    assert caught.value.details is not None
    assert [one["outcome"] for one in caught.value.details["decisions"]] == ["failed"] * 3
    record = bed.only
    assert (record.state, record.clean) == (State.FAILED, True)
    assert told(record.route.decisions) == [("a", "failed"), ("b", "failed"), ("c", "failed")]
    assert bed.left() == []


@pytest.mark.parametrize("error", [Invalid("no such size"), NotFound("no such template"), Conflict("taken")])
def test_a_callers_error_never_falls_over(bed: Bed, error: SandboxerError) -> None:
    bed.faults["a"].plan["provision"] = error
    with pytest.raises(type(error)):
        bed.create()
    assert bed.faults["b"].seen == []
    assert told(bed.only.route.decisions) == [("a", "failed"), ("b", "standby"), ("c", "standby")]


@pytest.mark.parametrize("error", [Denied("bad key"), NotConfigured("no key in there")])
def test_credentials_that_are_refused_move_on_although_nothing_can_be_looked_at(
    bed: Bed, error: SandboxerError
) -> None:
    """What would not let us create does not let us look either, and has made nothing."""
    bed.faults["a"].plan.update({"provision": error, "find": type(error)("still")})
    assert bed.create().extension == "ext.b"


@pytest.mark.parametrize("error", [Denied("bad key"), Unavailable("refused", outcome="failed")])
def test_a_provider_that_lets_nobody_in_leaves_nothing_to_wait_for(tmp_path: Path, error: SandboxerError) -> None:
    """Also when it is the only candidate: no record that nobody can end, and no money that stays set aside."""
    bed = Bed(tmp_path, {"a": metered("1")}, extension="ext.a")
    bed.here.manager.add_credits("5")
    bed.faults["a"].once = False
    bed.faults["a"].plan.update({"provision": error, "find": type(error)("still", outcome="failed")})
    with pytest.raises(type(error)) as caught:
        bed.create()
    assert caught.value.outcome == "failed"
    assert (bed.only.state, bed.only.clean) == (State.FAILED, True)
    assert bed.here.manager.credits().reserved_usd == "0"
    assert bed.process().manager.destroy(bed.only.id).state == State.DESTROYED


@pytest.mark.parametrize("knows", [True, False])
def test_a_handle_that_was_saved_before_asking_is_looked_for_unless_its_extension_knows_that_nothing_was_made(
    bed: Bed, knows: bool
) -> None:
    """A name is remembered before a provider is asked, so that alone says nothing of what was made."""
    error = Denied("bad key")
    error.made_nothing = knows
    bed.faults["a"].once = False  # else the last look before it gives up succeeds, and says that nothing is there
    bed.faults["a"].plan.update({"provision.saved": error, "teardown": Denied("still")})
    if knows:
        assert bed.create().extension == "ext.b"
        return
    with pytest.raises(Denied) as caught:
        bed.create()
    assert caught.value.outcome == "unknown"
    assert told(bed.only.route.decisions)[0] == ("a", "unknown")


@pytest.mark.parametrize("unsure", [Unavailable("cut off", outcome="unknown"), Timeout("late"), Unavailable("silent")])
def test_an_ambiguous_create_that_is_found_is_adopted(bed: Bed, unsure: SandboxerError) -> None:
    """Promise 7: the answer is lost, and at most one sandbox is kept."""
    bed.faults["a"].plan["provision.made"] = unsure
    record = bed.create()
    assert record.extension == "ext.a"
    assert told(record.route.decisions) == [("a", "chosen"), ("b", "standby"), ("c", "standby")]
    assert "was found, and is used" in reasons(record)["a"]
    assert bed.left() == [f"a/sbx-{record.id}"]


def test_an_adopted_one_that_does_not_come_up_is_reaped_and_the_next_one_serves(bed: Bed) -> None:
    bed.faults["a"].plan.update(
        {"provision.made": Unavailable("cut off", outcome="unknown"), "wait_ready": BackendError("it is broken")}
    )
    record = bed.create()
    assert record.extension == "ext.b"
    assert bed.left() == [f"b/sbx-{record.id}"]
    assert reasons(record)["a"] == "it is broken"


@pytest.mark.parametrize("backend", [OWN, CLOUD], ids=["a host of ours", "a provider"])
def test_a_lost_create_of_which_nothing_is_there_has_failed_for_certain(
    tmp_path: Path, backend: dict[str, Any]
) -> None:
    bed = Bed(tmp_path, {"one": backend}, extension="ext.one")
    bed.faults["one"].plan["provision"] = Unavailable("answered with 502", outcome="unknown")
    with pytest.raises(Unavailable) as caught:
        bed.create()
    error = bed.only.error
    assert error is not None
    assert (caught.value.outcome, error["outcome"], bed.only.clean) == ("failed", "failed", True)


def test_what_reconcile_finds_nothing_of_has_failed_for_certain(tmp_path: Path) -> None:
    bed = Bed(tmp_path, {"one": CLOUD}, extension="ext.one")
    lost = {"provision.made": Unavailable("cut off", outcome="unknown"), "find": Unavailable("silent")}
    bed.faults["one"].plan.update(lost)
    bed.faults["one"].once = False
    with pytest.raises(Unavailable) as caught:
        bed.create()
    error = bed.only.error
    assert error is not None
    assert (caught.value.outcome, error["outcome"], "rollback" in error["details"]) == ("unknown", "unknown", True)
    bed.faults["one"].plan.clear()
    bed.process().manager.reconcile(apply=True)
    error = bed.only.error
    assert error is not None
    assert (error["outcome"], bed.only.clean) == ("failed", True)
    assert "rollback" not in (error.get("details") or {})


def test_an_ambiguous_create_that_is_not_found_moves_on_only_after_looking(bed: Bed) -> None:
    bed.faults["a"].plan["provision"] = Unavailable("cut off", outcome="unknown")
    record = bed.create()
    assert record.extension == "ext.b"
    assert bed.faults["a"].seen == ["provision", "find"]


def test_when_nobody_can_say_what_is_there_nothing_else_is_begun(bed: Bed) -> None:
    """Promises 5 and 7: two sandboxes for one create are worse than none."""
    bed.faults["a"].once = False
    bed.faults["a"].plan.update(
        {"provision.made": Unavailable("cut off", outcome="unknown"), "find": Unavailable("still silent")}
    )
    with pytest.raises(Unavailable) as caught:
        bed.create()
    assert caught.value.outcome == "unknown"
    assert bed.faults["b"].seen == []
    record = bed.only
    assert (record.state, record.clean, record.extension) == (State.FAILED, False, "ext.a")
    assert told(record.route.decisions) == [("a", "unknown"), ("b", "standby"), ("c", "standby")]
    assert record.error is not None
    assert record.error["outcome"] == "unknown"
    bed.faults["a"].plan.clear()
    bed.process().manager.reconcile(apply=True)
    assert bed.left() == []
    assert bed.only.clean


def test_a_failed_one_that_cannot_be_taken_back_stops_the_route_too(bed: Bed) -> None:
    bed.faults["a"].once = False
    bed.faults["a"].plan.update({"wait_ready": BackendError("broken"), "teardown.half": Unavailable("no answer")})
    with pytest.raises(BackendError) as caught:
        bed.create()
    assert caught.value.outcome == "unknown"
    assert bed.faults["b"].seen == []
    assert told(bed.only.route.decisions)[0] == ("a", "unknown")
    assert "no answer" in reasons(bed.only)["a"]


def test_a_request_that_cannot_have_arrived_moves_on_although_the_provider_is_down(bed: Bed) -> None:
    """The adapter states that nothing was begun, and there is nobody to ask."""
    bed.faults["a"].plan.update(
        {"provision": Unavailable("refused", outcome="failed"), "find": Unavailable("refused", outcome="failed")}
    )
    assert bed.create().extension == "ext.b"


def test_on_hosts_of_ours_a_broken_off_create_is_reaped_not_adopted(tmp_path: Path) -> None:
    """There a create is many steps, and what is found may be half of one."""
    bed = Bed(tmp_path, {"own": OWN, "b": CLOUD})
    bed.faults["own"].plan["provision.made"] = Unavailable("the connection broke", outcome="unknown")
    record = bed.create()
    assert record.extension == "ext.b"
    assert bed.left() == [f"b/sbx-{record.id}"]


def test_keep_failed_stays_with_the_one_that_failed(bed: Bed) -> None:
    bed.faults["a"].plan["wait_ready"] = BackendError("broken")
    with pytest.raises(BackendError):
        bed.create(keep_failed=True)
    assert bed.left() == [f"a/sbx-{bed.only.id}"]
    assert bed.faults["b"].seen == []


def test_an_interrupt_does_not_move_on(bed: Bed) -> None:
    bed.faults["a"].plan["provision.made"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bed.create()
    assert bed.faults["b"].seen == []
    assert bed.left() == []


def test_our_own_full_disk_is_no_backends_fault(bed: Bed) -> None:
    """No other backend would fare better, and none is left alone for it."""
    here = bed.process()

    class Full(type(here.store)):  # type: ignore[misc]  # the store of this installation, but for one thing
        def update(self, sandbox_id: str, fn: Any, *, must_succeed: bool = False) -> Any:
            if bed.faults["a"].seen and not must_succeed:
                raise Unavailable("no space left on the device")
            return super().update(sandbox_id, fn, must_succeed=must_succeed)

    core = dataclasses.replace(here.manager.services, store=Full(here.paths.data))
    manager = SandboxManager(core)
    with pytest.raises(Unavailable):
        manager.create(manager.plan(Request(profile="profile.routed")))
    assert bed.faults["b"].seen == []
    assert bed.left() == []
    assert not (bed.root / "data" / "health.json").exists()


def test_a_sandbox_that_nobody_wants_any_more_is_not_tried_elsewhere(bed: Bed) -> None:
    class Gone(BackendError):
        """Whoever destroys it is faster."""

    manager = bed.process().manager
    begun = manager.begin(manager.plan(Request(profile="profile.routed")))

    def at(point: str) -> None:
        bed.faults["a"].seen.append(point)
        if point == "provision":
            manager.request_destroy(begun.record.id)  # type: ignore[union-attr]  # it was begun
            raise Gone("no")

    bed.faults["a"].at = at  # type: ignore[method-assign]  # a fault that acts
    with pytest.raises(Conflict):
        manager.carry_out(manager.plan(Request(profile="profile.routed")), begun)  # type: ignore[arg-type]
    assert bed.faults["b"].seen == []


def test_options_of_a_candidate_are_laid_over_the_profiles(tmp_path: Path) -> None:
    bed = Bed(
        tmp_path,
        {"a": CLOUD, "b": CLOUD},
        options={"greeting": "all"},
        route={"options": {"ext.b": {"greeting": "only b"}}},
    )
    bed.faults["a"].plan["provision"] = BackendError("no")
    record = bed.create()
    assert record.options == {"greeting": "only b"}
    assert (tmp_path / "work" / "b" / f"sbx-{record.id}" / "workspace" / "greeting").read_text() == "only b\n"


def test_a_wrong_option_of_any_candidate_is_told_before_anything_starts(tmp_path: Path) -> None:
    bed = Bed(tmp_path, {"a": CLOUD, "b": CLOUD}, route={"options": {"ext.b": {"greting": "x"}}})
    with pytest.raises(Invalid) as caught:
        bed.create()
    assert "ext.b" in caught.value.message
    strange = Bed(tmp_path, {"a": CLOUD}, route={"options": {"ext.z": {}}})
    with pytest.raises(Invalid):
        strange.create()


def test_a_sandbox_that_comes_up_below_the_isolation_floor_is_taken_back(tmp_path: Path) -> None:
    """The manifest claims more than there is: what counts is what came up."""
    bed = Bed(tmp_path, {"a": {**CLOUD, "isolation": {"class": "vm"}}}, require={"isolation": "vm"})
    with pytest.raises(BackendError) as caught:
        bed.create()
    assert "'none'" in caught.value.message
    assert bed.left() == []


class _Deaf(LocalHost):
    """A host that does not answer."""

    def connect(self, deadline: Deadline) -> None:
        raise Unavailable(f"{self.name} does not answer")


def _opener(deaf: Sequence[str]) -> Any:
    def opened(name: str, settings: HostSettings | None) -> Host:
        made = _Deaf if name in deaf else LocalHost
        return made(name, settings or HostSettings())

    return opened


def _hosts(bed: Bed, *, deaf: Sequence[str]) -> None:
    lines = "".join(f"  {name}: {{address: local, work_dir: {bed.root}/work}}\n" for name in ("h1", "h2"))
    (bed.root / "config" / "config.yaml").write_text(f"hosts:\n{lines}")
    before = bed.process

    def process(**environment: str) -> Any:
        here = before(**environment)
        here.hosts._opener = _opener(deaf)
        return here

    bed.process = process  # type: ignore[method-assign]  # the same installation with other hosts


def test_each_host_is_a_candidate_and_a_silent_one_costs_nothing(tmp_path: Path) -> None:
    bed = Bed(tmp_path, {"own": OWN, "b": CLOUD}, placement={"hosts": ["h1", "h2"]})
    _hosts(bed, deaf=["h1"])
    record = bed.create()
    assert (record.extension, record.host) == ("ext.own", "h2")
    assert [(one.host, one.outcome) for one in record.route.decisions] == [
        ("h1", "failed"),
        ("h2", "chosen"),
        (None, "standby"),
    ]


def test_in_a_route_a_host_that_fails_gives_way_to_the_next(tmp_path: Path) -> None:
    bed = Bed(tmp_path, {"own": OWN}, placement={"hosts": ["h1", "h2"]})
    _hosts(bed, deaf=[])
    bed.faults["own"].plan["provision.made"] = BackendError("disk full")
    record = bed.create()
    assert record.host == "h2"
    assert told(record.route.decisions) == [("own", "failed"), ("own", "chosen")]


def test_with_one_extension_only_a_silent_host_gives_way(tmp_path: Path) -> None:
    """Contract §2: what failed on a host that answers is the answer."""
    bed = Bed(tmp_path, {"own": OWN}, extension="ext.own", placement={"hosts": ["h1", "h2"]})
    _hosts(bed, deaf=[])
    bed.faults["own"].plan["provision"] = BackendError("disk full")
    with pytest.raises(BackendError):
        bed.create()
    assert told(bed.only.route.decisions) == [("own", "failed"), ("own", "standby")]


def test_configured_hosts_of_which_none_answers_are_unavailable_and_nothing_falls_to_this_machine(
    tmp_path: Path,
) -> None:
    """Contract §2: exit 8."""
    bed = Bed(tmp_path, {"own": OWN}, extension="ext.own", placement={"hosts": ["h1", "h2"]})
    _hosts(bed, deaf=["h1", "h2"])
    with pytest.raises(Unavailable) as caught:
        bed.create()
    assert caught.value.message.startswith("none of the hosts h1, h2 answers")
    assert bed.faults["own"].seen == []
    assert (bed.only.clean, bed.only.error["outcome"] if bed.only.error else None) == (True, "failed")


def test_a_stray_of_a_place_that_was_given_up_is_removed_while_the_sandbox_lives(bed: Bed) -> None:
    """Promise 7: what a lost create made after all is not billed for as long as its namesake lives elsewhere."""
    bed.faults["a"].plan["provision"] = Unavailable("cut off", outcome="unknown")
    record = bed.create()
    assert record.extension == "ext.b"
    alive = bed.root / "work" / "b" / f"sbx-{record.id}"
    ghost = bed.root / "work" / "a" / f"sbx-{record.id}"
    ghost.parent.mkdir(exist_ok=True)
    import shutil

    shutil.copytree(alive, ghost)
    marker = ghost / ".sandboxer.json"
    marker.write_text(marker.read_text().replace("ext.b", "ext.a"))
    report = bed.process().manager.reconcile(apply=True, grace=0.0)
    assert [(action.action, action.outcome, action.extension) for action in report.actions] == [
        ("remove", "done", "ext.a")
    ]
    assert bed.left() == [f"b/sbx-{record.id}"]


def test_a_lookalike_that_was_not_made_there_is_left_alone(bed: Bed) -> None:
    """Promise 6: two extensions may show the same thing."""
    bed.faults["a"].plan["provision"] = Unavailable("cut off", outcome="unknown")
    record = bed.create()
    (bed.root / "work" / "a").mkdir(exist_ok=True)
    (bed.root / "work" / "a" / f"sbx-{record.id}").symlink_to(bed.root / "work" / "b" / f"sbx-{record.id}")
    report = bed.process().manager.reconcile(apply=True, grace=0.0)
    assert report.actions == []
    assert (bed.root / "work" / "b" / f"sbx-{record.id}" / "workspace").is_dir()


def test_recreate_of_a_routed_sandbox_decides_anew(bed: Bed) -> None:
    bed.faults["a"].plan["provision"] = BackendError("full")
    record = bed.create()
    assert record.extension == "ext.b"
    again = bed.process().manager.recreate(record.id)
    assert again.extension == "ext.a"


class Picky(Backend):
    """A backend that looks at the request before any host is reached."""

    def examine(self, spec: Spec, host: Host) -> None:
        error = self.faults.plan.get("examine")
        if error is not None:
            raise error


@pytest.fixture
def picky(tmp_path: Path) -> Bed:
    bed = Bed(tmp_path, {"a": OWN, "b": OWN})
    bed.backend = Picky
    return bed


def test_a_create_that_is_refused_from_here_leaves_no_record(picky: Bed) -> None:
    """It left one that had failed, which `reconcile` told of until it was destroyed."""
    picky.faults["a"].plan["examine"] = Invalid("there is no compose file")
    with pytest.raises(Invalid, match="no compose file") as raised:
        picky.create()
    assert raised.value.sandbox_id is None
    assert picky.process().manager.list(ended=True) == []
    assert picky.left() == []


def test_a_create_goes_on_when_a_later_backend_of_its_route_would_take_it(picky: Bed) -> None:
    picky.faults["a"].plan["examine"] = Denied("not on this host")
    record = picky.create()
    assert (record.extension, picky.left()) == ("ext.b", [f"b/sbx-{record.id}"])


def test_a_recreate_that_no_backend_of_its_route_would_take_keeps_the_old_one(picky: Bed) -> None:
    old = picky.create()
    picky.faults["a"].plan["examine"] = Invalid("there is no compose file any more")
    with pytest.raises(Invalid, match="no compose file"):
        picky.process().manager.recreate(old.id)
    assert picky.process().manager.get(old.id).state == State.READY
    assert picky.left() == [f"a/sbx-{old.id}"]


def test_a_recreate_goes_ahead_when_a_later_backend_of_its_route_would_take_it(picky: Bed) -> None:
    old = picky.create()
    picky.faults["a"].plan["examine"] = Denied("not on this host")
    new = picky.process().manager.recreate(old.id)
    assert (new.extension, picky.left()) == ("ext.b", [f"b/sbx-{new.id}"])
