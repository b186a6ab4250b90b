"""A metered fake backend, an installation with it, and a clock that is moved by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

from sandboxer.bootstrap import Installation
from sandboxer.extensions.base import CanMeter, Context
from sandboxer.manager import SandboxManager, Services
from sandboxer.models import Handle, Request, Resources, Sandbox, Written
from sandboxer.payments.credits import Credits
from sandboxer.testing.fake import FakeExtension, FakeOptions, Faults
from tests.installations import installed, lay_out

START = 1_800_000_000.0
SECOND = Decimal("0.001")
"""What a second of one virtual processor costs by the manifest below."""

MANIFEST = """\
id: ext.fake
version: 1.0.0
class: tests.manager.metered:MeteredFake
title: Plain directories, metered
isolation: {class: none, notes: [isolates nothing]}
pricing_model: metered
prices: {as_of: "2026-11-01", source: made up, vcpu_hour: {usd: "3.6"}, gpu_hour: {T4: {usd: "7.2"}}}
"""
PROFILE = """\
id: profile.fake
version: 1.2.3
title: Plain directories, metered
extension: ext.fake
ttl: {default: 1000s, max: 4h, failed: 30m}
pricing_model: metered
"""
ENDLESS = PROFILE.replace("profile.fake", "profile.endless").replace("default: 1000s, max: 4h", "default: null")


class MeteredOptions(FakeOptions, frozen=True, kw_only=True):
    """How many virtual processors are asked for."""

    vcpu: float = 1


class MeteredFake(FakeExtension, CanMeter):
    """A fake that costs something. `meter` answers instead of the backend's meter; what it raises is raised."""

    Options: ClassVar[type[Written]] = MeteredOptions

    def __init__(self, faults: Faults | None = None, meter: Callable[[], Resources | None] = lambda: None) -> None:
        super().__init__(faults)
        self._meter = meter

    def estimate_cost(self, options: Any) -> Resources:
        return Resources(vcpu=options.vcpu)

    def meter_actual(self, handle: Handle, ctx: Context) -> Resources | None:
        return self._meter()


class Bank:
    """An installation whose time stands still until it is moved."""

    def __init__(
        self,
        root: Path,
        *,
        money: str | None = "100",
        config: str = "",
        extension: Callable[[], FakeExtension] = MeteredFake,
        manifest: str = MANIFEST,
    ) -> None:
        self.root = root
        self.now = START
        if not (root / "config").exists():
            lay_out(root, config=f"hosts:\n  local: {{work_dir: {root}/work}}\n{config}")
            (root / "config" / "extensions" / "ext.fake.yaml").write_text(manifest)
            (root / "config" / "profiles" / "profile.fake.yaml").write_text(PROFILE)
            (root / "config" / "profiles" / "profile.endless.yaml").write_text(ENDLESS)
        self.here = installed(root)
        self.here.manager.services.extensions.add("ext.fake", extension)
        self.manager = SandboxManager(with_clock(self.here, lambda: self.now))
        if money is not None:
            self.manager.add_credits(money)

    def create(self, *, actor: str | None = None, **asked: Any) -> Sandbox:
        plan = self.manager.plan(Request(**{"profile": "profile.fake", **asked}), actor=actor)
        return self.manager.create(plan)

    @property
    def spent(self) -> Decimal:
        return Decimal(self.manager.credits().spent_usd)

    @property
    def reserved(self) -> Decimal:
        return Decimal(self.manager.credits().reserved_usd)

    def kinds(self) -> list[str]:
        """What the book has entries of."""
        return [entry.kind for entry in book(self.root).entries]


def with_clock(here: Installation, clock: Callable[[], float]) -> Services:
    core = here.manager.services
    ledger = Credits(here.paths.data, here.settings.budgets, install=lambda: here.store.install_id, clock=clock)
    return dataclasses.replace(core, clock=clock, uptime=clock, credits=ledger)


def book(root: Path) -> Any:
    from sandboxer.payments.codec import parse

    file = root / "data" / "credits.json"
    return parse(file.read_bytes(), file).book
