"""Several fake backends behind one route, each with faults of its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sandboxer.bootstrap import Installation
from sandboxer.extensions.base import Context
from sandboxer.manager import SandboxManager
from sandboxer.manager.establish.backend_health import HealthStore
from sandboxer.models import Decision, Request, Sandbox
from sandboxer.testing.fake import FakeExtension, Faults
from tests.installations import installed, lay_out

PRICES = {"as_of": "2026-11-01", "source": "a test"}


class Backend(FakeExtension):
    """A fake with a directory of its own."""

    def __init__(self, name: str, faults: Faults) -> None:
        super().__init__(faults)
        self.name = name

    def root(self, ctx: Context) -> Path:
        root = Path(ctx.host.work_dir(ctx.deadline)) / self.name
        root.mkdir(parents=True, exist_ok=True)
        return root


class Bed:
    """An installation with `profile.routed` over backends called by single names."""

    def __init__(self, root: Path, backends: Mapping[str, Mapping[str, Any]], **profile: Any) -> None:
        self.root = root
        self.faults = {name: Faults() for name in backends}
        self.ahead = 0.0
        self.backend = Backend
        lay_out(root)
        for name, manifest in backends.items():
            self._write("extensions", f"ext.{name}", _manifest(manifest))
        route = {"strategy": profile.pop("strategy", "explicit"), "candidates": [f"ext.{name}" for name in backends]}
        more = profile.pop("route", {})
        what = profile if "extension" in profile else {"route": {**route, **more}, **profile}
        self._write("profiles", "profile.routed", {"ttl": {"default": "1h", "max": "4h", "failed": "30m"}, **what})
        self.here = self.process()

    def _write(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        file = self.root / "config" / kind / f"{name}.yaml"
        file.write_text(json.dumps({"id": name, "version": "1.0.0", **document}))  # JSON is YAML

    def process(self, **environment: str) -> Installation:
        """A new process over the same files; its clock is `ahead` seconds fast."""
        here = installed(self.root, None, **environment)
        clock: Callable[[], float] = lambda: _real_time() + self.ahead  # noqa: E731 - a clock is one line
        health = HealthStore(self.root / "data", clock=clock)
        here.manager = SandboxManager(dataclasses.replace(here.manager.services, clock=clock, health=health))
        for name, faults in self.faults.items():
            here.manager.services.extensions.add(f"ext.{name}", partial(self.backend, name, faults))
        return here

    def create(self, **asked: Any) -> Sandbox:
        """Create one in a process of its own."""
        self.here = self.process()
        return self.here.manager.create(self.here.manager.plan(Request(profile="profile.routed", **asked)))

    def explain(self, **asked: Any) -> list[tuple[str, str]]:
        """What would be decided: (backend, outcome)."""
        found = self.process().manager.explain(Request(profile="profile.routed", **asked))
        return told(found.decisions)

    def left(self) -> list[str]:
        """What the backends hold: the census of these tests."""
        return sorted(str(path.relative_to(self.root / "work")) for path in (self.root / "work").glob("*/*sbx-*"))

    @property
    def only(self) -> Sandbox:
        """The one record."""
        (record,) = self.process().manager.list(ended=True)
        return record


def told(decisions: list[Decision]) -> list[tuple[str, str]]:
    """Backend and outcome of each decision, in order."""
    return [(decision.extension.removeprefix("ext."), decision.outcome) for decision in decisions]


def reasons(record: Sandbox) -> dict[str, str]:
    """The reason of each backend's decision."""
    return {one.extension.removeprefix("ext."): one.reason for one in record.route.decisions}


def _manifest(more: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "class": "sandboxer.testing.fake:FakeExtension",
        "isolation": {"class": "none", "notes": []},
        **more,
    }


def _real_time() -> float:
    import time

    return time.time()


OWN: dict[str, Any] = {}
CLOUD: dict[str, Any] = {"self_hosted": False}


def metered(usd: str, **more: Any) -> dict[str, Any]:
    """A provider's backend that costs `usd` an hour."""
    return {**CLOUD, "pricing_model": "metered", "prices": {**PRICES, "sandbox_hour": {"usd": usd}}, **more}
