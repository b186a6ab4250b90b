"""Compose sandboxes keep the extension contract, with each front end over a real sshd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, cast

import pytest

from sandboxer.extensions.compose_ssh import ComposeExtension
from sandboxer.testing.conformance import Bench, ConformanceSuite
from tests.extensions.compose.sandboxes import Bed
from tests.testbed import repositories
from tests.testbed.hosts import KINDS, Kind


class TestCompose(ConformanceSuite):
    deviations: ClassVar[Mapping[str, str]] = {
        "test_a_link_to_nothing_is_there": "the engines follow a link before they look at it"
    }

    @pytest.fixture(scope="class", params=KINDS)
    def bench(
        self, request: pytest.FixtureRequest, beds: Callable[[Kind], Bed], tmp_path_factory: pytest.TempPathFactory
    ) -> Bench:
        bed: Bed = request.getfixturevalue("here") if request.param == "here" else beds(cast("Kind", request.param))
        folder: Path = tmp_path_factory.mktemp("repos")
        return Bench(
            extension=ComposeExtension,
            extension_id="ext.compose-ssh",
            hosts=bed.connect,
            census=lambda: sorted(bed.census().found),
            inputs={"repo": str(repositories.minimal(folder / "minimal"))},
            options={"settle": 0.3},
            broken={"inputs": {"repo": str(repositories.exits(folder / "exits"))}},
        )
