"""Fakes of the clouds, on loopback: stateful, with real files and real processes, and with faults as they are scripted.

They are product code: a fake is held to the provider's own client and specification, and our adapter to the fake.
`python -m tests.fakes e2b` starts one by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from tests.fakes.faults import Fault, Script
from tests.fakes.sandbox_fs import Process, SandboxFS
from tests.fakes.server import ErrorReply, FakeServer, RecordedRequest, Reply, Request

CLOUDS: Mapping[str, str] = {
    "e2b": "tests.fakes.e2b:FakeE2B",
    "daytona": "tests.fakes.daytona:FakeDaytona",
    "modal": "tests.fakes.modal:FakeModal",
}
"""Name -> where its fake is."""


class Cloud(Protocol):
    """What every fake cloud has. Made by `FakeX(port=0, latency=0.0)`; a context manager."""

    script: Script
    """The faults to come."""
    latency: float

    def start(self) -> Self:
        """Listen."""

    def stop(self) -> None:
        """Go down, and end and remove every sandbox."""

    def environment(self) -> Mapping[str, str]:
        """The variables that point sandboxer, and the provider's own SDK, here; a key included."""

    def census(self) -> Sequence[str]:
        """Everything that lives and costs: provider ids of sandboxes (stopped ones too) and snapshots."""

    @property
    def creates(self) -> int:
        """How many sandboxes were ever made."""

    def billed_seconds(self, provider_id: str) -> float:
        """For how long one has run, so far or until its end."""


__all__ = [
    "CLOUDS",
    "Cloud",
    "ErrorReply",
    "FakeServer",
    "Fault",
    "Process",
    "RecordedRequest",
    "Reply",
    "Request",
    "SandboxFS",
    "Script",
]
