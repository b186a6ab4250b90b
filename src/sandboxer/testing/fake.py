"""A backend of plain directories and processes on this machine, with faults on demand. It isolates nothing.

It keeps the extension contract exactly, so that the core can be tested against every way in which a backend can fail,
quickly; it passes the same conformance suite as the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from sandboxer.extensions.base import Spec
from sandboxer.extensions.directories.directory_extension import DirectoryExtension
from sandboxer.models import IsolationClaim, Manifest, Written

POINTS = (
    "provision", "provision.made", "provision.saved", "wait_ready", "status", "find", "inventory",
    "teardown", "teardown.half", "teardown.done", "renew",
)  # fmt: skip
"""Where a fault can strike: before the first effect of a method (its bare name), or right after the named step."""


@dataclass
class Faults:
    """What goes wrong, where. `at(point)` is called at every point; a plan's entry is raised there, once or always."""

    plan: dict[str, BaseException] = field(default_factory=dict)
    once: bool = True
    seen: list[str] = field(default_factory=list)

    def at(self, point: str) -> None:
        """Raise what is planned for this point."""
        self.seen.append(point)
        error = self.plan.pop(point, None) if self.once else self.plan.get(point)
        if error is not None:
            raise error


class FakeOptions(Written, frozen=True, kw_only=True):
    """Options of the fake: `greeting` is written to the workspace."""

    greeting: str = "hello"


class FakeExtension(DirectoryExtension):
    """Sandboxes that are directories below `<work dir>`, for tests."""

    Options: ClassVar[type[Written]] = FakeOptions
    folder = "fake"
    notes: ClassVar[list[str]] = ["isolates nothing"]
    manifest: ClassVar[Manifest] = Manifest(
        id="ext.fake",
        version="1.0.0",
        class_="sandboxer.testing.fake:FakeExtension",
        title="Plain directories, for tests",
        isolation=IsolationClaim(class_="none", notes=notes),
    )

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()

    def at(self, point: str) -> None:
        """Fail here, if that is planned."""
        self.faults.at(point)

    def fill(self, workspace: Path, spec: Spec) -> None:
        """The greeting."""
        (workspace / "greeting").write_text(spec.options.greeting + "\n")
