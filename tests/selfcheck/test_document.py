"""docs/host-telemetry.md names every key of the report and every claim of the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxer import telemetry
from sandboxer.models import Isolation, IsolationClass
from sandboxer.selfcheck.claims import checks
from sandboxer.selfcheck.isolation_report import IsolationReport

PAGE = (Path(__file__).parents[2] / "docs" / "host-telemetry.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
CLASSES: tuple[IsolationClass, ...] = ("namespace", "container", "vm", "microvm", "remote")


def test_every_key_of_the_telemetry_is_explained() -> None:
    assert [key for key in telemetry.parse("") if f"`{key}`" not in PAGE] == []


def test_every_measurement_is_explained() -> None:
    assert [key for key in IsolationReport.__struct_fields__ if f"`{key}`" not in PAGE] == []


@pytest.mark.parametrize("class_", CLASSES)
def test_the_table_of_claims_is_the_one_in_force(class_: IsolationClass) -> None:
    column = {"namespace": 1, "container": 2}.get(class_, 3)
    start = next(i for i, row in enumerate(ROWS) if row[0] == "claim") + 2
    claimed = {row[0] for row in ROWS[start:] if len(row) == 4 and row[column]}
    assert claimed == {check.claim for check in checks(Isolation(class_=class_, network="?"), IsolationReport())}


def test_the_claims_that_a_filter_adds_are_told() -> None:
    plain = {check.claim for check in checks(Isolation(class_="namespace", network="?"), IsolationReport())}
    filtered = Isolation(class_="namespace", network="?", syscalls="filtered")
    added = {check.claim for check in checks(filtered, IsolationReport())} - plain
    assert len(added) == 3
    assert [claim for claim in added if f'"{claim}"' not in " ".join(PAGE.split())] == []
    assert "`syscalls: filtered`" in PAGE


@pytest.mark.parametrize("network", ["none", "bridge", "nat", "private", "user", "host"])
def test_the_claims_that_a_networks_name_adds_are_told(network: str) -> None:
    plain = {check.claim for check in checks(Isolation(class_="namespace", network="?"), IsolationReport())}
    named = {check.claim for check in checks(Isolation(class_="namespace", network=network), IsolationReport())}
    assert named - plain
    assert f"`{network}`" in PAGE
    assert [claim for claim in named - plain if f'"{claim}"' not in " ".join(PAGE.split())] == []
