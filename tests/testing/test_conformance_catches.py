"""The conformance suite sees what it is for: each planted fault fails the test that names it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandboxer.extensions.base import Context, Spec, Status
from sandboxer.extensions.directories.sandbox import WORKSPACE, directory_of
from sandboxer.extensions.saas_stub import SaasStubExtension
from sandboxer.hosts.base import Host
from sandboxer.hosts.local import LocalHost
from sandboxer.models import Handle, HostSettings, Ready, Requirements, Resources
from sandboxer.secrets import Secret
from sandboxer.testing.conformance import Bench, ConformanceSuite, Made, make

SUITE = ConformanceSuite()
RIGHT = "the-key-of-these-tests"


class LosesFilesWhenStopped(SaasStubExtension):
    def stop(self, handle: Handle, ctx: Context) -> None:
        super().stop(handle, ctx)
        shutil.rmtree(directory_of(handle) / WORKSPACE)
        (directory_of(handle) / WORKSPACE).mkdir()


class SaysRunningWhenStopped(SaasStubExtension):
    def status(self, handle: Handle, ctx: Context) -> Status:
        shown = super().status(handle, ctx)
        return Status("running") if shown.presence == "stopped" else shown


class LeavesItsSnapshots(SaasStubExtension):
    def delete_snapshot(self, snapshot: Handle, ctx: Context) -> None:
        """Nothing."""


class SnapshotDiesWithItsSandbox(SaasStubExtension):
    def snapshot(self, handle: Handle, name: str, ctx: Context) -> Handle:
        return Handle(version=1, data={"snapshot": str(directory_of(handle))})


class SnapshotIsOfLater(SaasStubExtension):
    """What is restored is the sandbox as it was at its end."""

    def snapshot(self, handle: Handle, name: str, ctx: Context) -> Handle:
        kept = super().snapshot(handle, name, ctx)
        shutil.rmtree(Path(kept.data["snapshot"]) / WORKSPACE)
        (Path(kept.data["snapshot"]) / WORKSPACE).symlink_to(directory_of(handle) / WORKSPACE)
        return kept


class RestoresWithoutLabels(SaasStubExtension):
    def restore_from_snapshot(self, spec: Spec, snapshot: Handle, ctx: Context) -> Handle:
        labels = {**spec.labels, "sandboxer.id": "somebodyelse"}
        return super().restore_from_snapshot(msgspec.structs.replace(spec, labels=labels), snapshot, ctx)


class PromisesAnything(SaasStubExtension):
    def fit(self, options: Any, require: Requirements) -> Any:
        return options


class EstimatesTooLittle(SaasStubExtension):
    def estimate_cost(self, options: Any) -> Resources:
        return Resources(vcpu=1)


class MetersOtherwiseThanItShowed(SaasStubExtension):
    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        return msgspec.structs.replace(super().wait_ready(handle, ctx), resources=Resources(vcpu=64))


class TakesAnyKey(SaasStubExtension):
    """And sees nothing with it."""

    def status(self, handle: Handle, ctx: Context) -> Status:
        return Status("absent") if ctx.secrets["KEY"].reveal() != RIGHT else super().status(handle, ctx)


class RemembersItsKey(SaasStubExtension):
    def provision(self, spec: Spec, ctx: Context) -> Handle:
        made = super().provision(spec, ctx)
        return Handle(version=1, data={**made.data, "key": ctx.secrets["KEY"].reveal()})


def _bench(tmp_path: Path, extension: type[SaasStubExtension]) -> Bench:
    return Bench(
        extension=extension,
        extension_id="ext.planted",
        hosts=lambda: LocalHost("local", HostSettings(work_dir=str(tmp_path))),
        census=lambda: [str(path) for path in (*tmp_path.glob("*/*sbx-*"), *tmp_path.glob("*/snapshots/*"))],
        met=[(Requirements(vcpu=4), ())],
        secrets={"KEY": Secret(RIGHT)},
        endpoints={"api": "http://127.0.0.1:2"},
        seconds=20,
    )


def _with_one(run: Callable[[Made], None]) -> Callable[[Bench, Host], None]:
    return lambda bench, host: run(make(bench, host))


PLANTED: list[tuple[type[SaasStubExtension], Callable[[Bench, Host], None]]] = [
    (LosesFilesWhenStopped, _with_one(SUITE.test_a_stopped_sandbox_is_stopped_and_keeps_its_files)),
    (SaysRunningWhenStopped, _with_one(SUITE.test_a_stopped_sandbox_is_stopped_and_keeps_its_files)),
    (LeavesItsSnapshots, SUITE.test_a_snapshot_outlives_its_sandbox_and_makes_new_ones),
    (SnapshotDiesWithItsSandbox, SUITE.test_a_snapshot_outlives_its_sandbox_and_makes_new_ones),
    (SnapshotIsOfLater, SUITE.test_a_snapshot_outlives_its_sandbox_and_makes_new_ones),
    (RestoresWithoutLabels, SUITE.test_a_snapshot_outlives_its_sandbox_and_makes_new_ones),
    (PromisesAnything, lambda bench, _: SUITE.test_what_cannot_be_met_is_refused_before_anything_starts(bench)),
    (PromisesAnything, SUITE.test_what_is_required_is_there),
    (EstimatesTooLittle, lambda bench, _: SUITE.test_the_estimate_is_of_what_is_required(bench)),
    (MetersOtherwiseThanItShowed, _with_one(SUITE.test_what_the_backend_meters_is_what_it_showed_when_ready)),
    (TakesAnyKey, SUITE.test_a_wrong_key_is_refused_and_nothing_is_made),
    (TakesAnyKey, _with_one(SUITE.test_with_another_key_it_is_not_said_to_be_absent)),
    (TakesAnyKey, SUITE.test_without_a_key_it_is_not_configured),
    (SaasStubExtension, _with_one(SUITE.test_where_nobody_answers_it_is_not_said_to_be_absent)),
    (RemembersItsKey, _with_one(SUITE.test_a_key_is_nowhere_in_what_is_remembered)),
]


@pytest.mark.parametrize(
    ("extension", "run"), PLANTED, ids=[f"{each[0].__name__} {n}" for n, each in enumerate(PLANTED)]
)
def test_a_planted_fault_is_seen(
    tmp_path: Path, extension: type[SaasStubExtension], run: Callable[[Bench, Host], None]
) -> None:
    bench = _bench(tmp_path, extension)
    try:
        run(bench, bench.hosts())
    except pytest.skip.Exception:
        raise AssertionError("it was not looked at") from None
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - the suite may see it in any way
        return
    raise AssertionError("it was not seen")


@pytest.mark.parametrize(
    "run",
    [
        _with_one(SUITE.test_a_stopped_sandbox_is_stopped_and_keeps_its_files),
        SUITE.test_a_snapshot_outlives_its_sandbox_and_makes_new_ones,
        SUITE.test_what_is_required_is_there,
        lambda bench, _: SUITE.test_what_cannot_be_met_is_refused_before_anything_starts(bench),
        lambda bench, _: SUITE.test_the_estimate_is_of_what_is_required(bench),
        _with_one(SUITE.test_what_the_backend_meters_is_what_it_showed_when_ready),
        _with_one(SUITE.test_a_key_is_nowhere_in_what_is_remembered),
    ],
)
def test_without_a_fault_the_same_tests_pass(tmp_path: Path, run: Callable[[Bench, Host], None]) -> None:
    bench = _bench(tmp_path, SaasStubExtension)
    run(bench, bench.hosts())
