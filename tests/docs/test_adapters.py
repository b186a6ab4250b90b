"""Every adapter has the same rooms, and docs/adapters.md says why where one has another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, bare, table

PAGE = ROOT / "docs" / "adapters.md"
EXTENSIONS = ROOT / "src" / "sandboxer" / "extensions"
ADAPTERS = ("compose_ssh", "daytona", "e2b", "modal", "native")
REQUIRED = frozenset(
    {"extension", "options", "handle", "client", "create", "exec", "files", "logs", "describe", "errors"}
)
WHERE_IT_HAS_THEM = frozenset({"snapshots", "processes", "scripts"})


def rooms(adapter: Path) -> frozenset[str]:
    """The modules and packages of an adapter; a folder without Python is data."""
    modules = {path.stem for path in adapter.glob("*.py")} - {"__init__"}
    return frozenset(modules | {path.parent.name for path in adapter.glob("*/__init__.py")})


def complaints(found: Mapping[str, frozenset[str]], more: frozenset[tuple[str, str]]) -> list[str]:
    """What the tree and the page say differently."""
    wrong = []
    for adapter, names in sorted(found.items()):
        told = {room for name, room in more if name == adapter}
        wrong += [f"{adapter}/{room} has no row" for room in sorted(names - REQUIRED - WHERE_IT_HAS_THEM - told)]
        wrong += [f"{adapter}/{room} is not there" for room in sorted(REQUIRED - names)]
        wrong += [f"{adapter}/{room} has a row and is not there" for room in sorted(told - names)]
    return wrong


def _rows() -> frozenset[tuple[str, str]]:
    rows = table(PAGE, "adapter", "room", "reason").rows
    assert all(reason for _, _, reason in rows), "a reason in each"
    return frozenset((bare(adapter), bare(room)) for adapter, room, _ in rows)


def test_every_adapter_has_the_rooms_that_the_page_says() -> None:
    found = {name: rooms(EXTENSIONS / name) for name in ADAPTERS}
    assert complaints(found, _rows()) == []


def test_every_package_of_an_adapter_is_looked_at() -> None:
    packages = {path.parent.name for path in EXTENSIONS.glob("*/extension.py")}
    assert packages == set(ADAPTERS)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (REQUIRED | {"policy", "making"}, "x/making has no row"),
        ((REQUIRED | {"policy"}) - {"errors"}, "x/errors is not there"),
        (REQUIRED, "x/policy has a row and is not there"),
    ],
)
def test_another_room_is_noticed(names: frozenset[str], complaint: str) -> None:
    more = frozenset({("x", "policy")})
    assert complaints({"x": REQUIRED | {"policy"}}, more) == []
    assert complaints({"x": names}, more) == [complaint]
