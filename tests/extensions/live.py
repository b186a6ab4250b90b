"""The conformance suite on a real provider, with real credentials: opt in with SANDBOXER_LIVE=1. It costs money.

@LIVE
class TestLive(ConformanceSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Bench:
        return live_bench("ext.e2b", tmp_path_factory.mktemp("live"), broken={"options": {"template": "no-such"}})

SANDBOXER_LIVE=1 E2B_API_KEY=... pytest -m live tests/extensions/e2b
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from sandboxer.bootstrap import install
from sandboxer.errors import NotConfigured
from sandboxer.extensions.base import CanSnapshot
from sandboxer.hosts.local import LocalHost
from sandboxer.models import HostSettings, Requirements
from sandboxer.testing.conformance import Bench
from sandboxer.testing.conformance.bench import INSTALL
from sandboxer.timing import Deadline
from tests.installations import environment

_PLAIN: Final = ("HOME", "PATH", "USER", "SANDBOXER_DATA_DIR", "SANDBOXER_CONFIG_DIR")


def asked_for() -> bool:
    """Whether real providers may be called."""
    return os.environ.get("SANDBOXER_LIVE") == "1"


def _live(cls: type) -> type:
    marked: type = pytest.mark.live(cls)
    skipped: type = pytest.mark.skipif(not asked_for(), reason="calls a real provider: opt in with SANDBOXER_LIVE=1")(
        marked
    )
    return skipped


LIVE: Final = _live
"""Marks a class of tests that calls a real provider, and skips it unless that was asked for."""


def live_bench(
    extension_id: str,
    root: Path,
    *,
    options: Mapping[str, Any] | None = None,
    broken: Mapping[str, Mapping[str, Any]] | None = None,
    met: Sequence[tuple[Requirements, Sequence[str]]] = (),
    unmet: Sequence[Requirements] = (),
    seconds: float = 600.0,
) -> Bench:
    """A bench on the provider that the environment has credentials for; skips, with what is missing, when it has none.

    Its census is the extension's own inventory of the suite's installation: on a real provider there is no other way to
    look that every provider has. What it does not show (a snapshot, where the provider does not label them) is not
    counted."""
    given = {name: value for name, value in os.environ.items() if name not in _PLAIN}
    here = install({**given, **environment(root)}, relay_in_background=False)
    core = here.manager.services
    try:
        ready = core.extension_context(extension_id, None, Deadline(60))
        core.extensions.get(extension_id).check(ready)
    except NotConfigured as error:
        pytest.skip(f"{error.message}: {error.hint}")
    extension = type(core.extensions.get(extension_id))

    def census() -> list[str]:
        context = core.extension_context(extension_id, None, Deadline(60))
        found = extension().inventory(msgspec.structs.replace(context, install=INSTALL))
        return sorted(each.sandbox_id for each in found)

    return Bench(
        extension=extension,
        extension_id=extension_id,
        hosts=lambda: LocalHost("local", HostSettings(work_dir=str(root / "work"))),
        census=census,
        options=options or {},
        broken=broken,
        met=met,
        unmet=unmet,
        seconds=seconds,
        secrets=ready.secrets,
        endpoints=ready.endpoints,
        counts_snapshots=not issubclass(extension, CanSnapshot),
    )
