"""Promise 6: whatever is there, `reconcile` removes only what is ours, without a live record, and old enough."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandboxer.config.catalog import Catalog
from sandboxer.errors import Unavailable
from sandboxer.extensions.base import Context, Found
from sandboxer.manager import SandboxManager
from sandboxer.manager.limits import DEFAULT
from sandboxer.models import Manifest
from sandboxer.names import LABEL_ID, LABEL_INSTALL, MARKER_FILE
from sandboxer.registry import Registry
from sandboxer.testing.fake import FakeExtension, Faults
from tests.installations import create, installed, left_over
from tests.sizes import scaled


class Thing(NamedTuple):
    """A directory on the host that no record knows."""

    ours: bool
    marked: bool
    age: float


class World(NamedTuple):
    """Sandboxes with records, things without, and whether the backend lists them."""

    recorded: int
    things: list[Thing]
    listed: bool


THINGS = st.builds(
    Thing, st.booleans(), st.booleans(), st.sampled_from([0.0, DEFAULT.stale_grace - 60, DEFAULT.stale_grace * 5])
)
WORLDS = st.builds(World, st.integers(0, 4), st.lists(THINGS, max_size=9), st.sampled_from([True, True, True, False]))


@contextmanager
def made(world: World, extension: type[FakeExtension] = FakeExtension) -> Iterator[tuple[SandboxManager, Path]]:
    """The world, for real, in a directory of its own."""
    root = Path(tempfile.mkdtemp(prefix="world"))
    try:
        here = installed(root)
        for _ in range(world.recorded):
            create(here)
        for number, thing in enumerate(world.things):
            sandbox_id = f"w{number:011d}"
            directory = root / "work" / "fake" / f"sbx-{sandbox_id}"
            (directory / "workspace").mkdir(parents=True)
            if thing.marked:
                install = here.store.install_id if thing.ours else "somebodyelse"
                labels = {LABEL_ID: sandbox_id, LABEL_INSTALL: install, "created_at": time.time() - thing.age}
                (directory / MARKER_FILE).write_text(json.dumps(labels))
        faults = Faults({} if world.listed else {"inventory": Unavailable("truncated")})
        registry = Registry(Catalog("extension", Manifest, (root / "config" / "extensions",)))
        registry.add("ext.fake", lambda: extension(faults))
        yield SandboxManager(dataclasses.replace(here.manager.services, extensions=registry)), root
    finally:
        shutil.rmtree(root)


def may_go(world: World) -> set[str]:
    """The things that a sweep may remove."""
    if not world.listed:
        return set()
    strays = {
        f"work/fake/sbx-w{n:011d}"
        for n, thing in enumerate(world.things)
        if thing.ours and thing.marked and thing.age > DEFAULT.stale_grace
    }
    seen = world.recorded + sum(thing.ours and thing.marked for thing in world.things)
    too_many = len(strays) > 5 and len(strays) > 0.2 * (world.recorded + seen)
    return set() if too_many else strays


def check(world: World, extension: type[FakeExtension] = FakeExtension) -> None:
    """Sweep the world and compare what is gone with what may go."""
    with made(world, extension) as (manager, root):
        before = set(left_over(root))
        manager.reconcile(apply=True)
        assert before - set(left_over(root)) == may_go(world)


@settings(max_examples=scaled(150, soak=10_000), deadline=None, suppress_health_check=list(HealthCheck))
@given(WORLDS)
def test_only_old_strays_of_ours_are_removed(world: World) -> None:
    check(world)


class _Greedy(FakeExtension):
    def inventory(self, ctx: Context) -> list[Found]:
        """Lists everybody's."""
        install = "somebodyelse"
        return super().inventory(ctx) + super().inventory(
            Context(host=ctx.host, install=install, deadline=ctx.deadline)
        )


def test_a_backend_that_lists_other_peoples_things_is_caught() -> None:
    """The check sees a planted fault."""
    with pytest.raises(AssertionError):
        check(World(1, [Thing(ours=False, marked=True, age=DEFAULT.stale_grace * 5)], listed=True), _Greedy)
