"""Record how each backend has done (an extension on a host): `health.json` in the data directory.

It is advice. Whatever is wrong with the file, a create goes on without it, and the next write starts afresh; so it is
only written when it has something to say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from sandboxer.errors import SandboxerError
from sandboxer.manager.limits import DEFAULT, Limits
from sandboxer.models import Value
from sandboxer.routing import circuit_breaker
from sandboxer.routing.circuit_breaker import NO_STATS, BackendStats, Circuit
from sandboxer.store.document import AtomicDocument
from sandboxer.store.parse_cache import ParseCache
from sandboxer.timing import now

FILE: Final = "health.json"
VERSION: Final = 1

BackendKey = tuple[str, str | None]
"""An extension, and one of its hosts; None for one that has no hosts."""


HealthVersion = tuple[int, dict[BackendKey, BackendStats]]
"""A version of the document: its revision, and what it says of each place."""


class BackendEntry(Value, frozen=True, kw_only=True):
    """One place in the document."""

    extension: str
    host: str | None
    health: BackendStats


class BackendHealthDocument(Value, frozen=True, kw_only=True):
    """`health.json`. `revision` counts its versions."""

    schema_version: int = VERSION
    revision: int = 0
    places: list[BackendEntry] = []


class HealthSnapshot(msgspec.Struct, frozen=True):
    """What was known of the places at one moment (`at`, unix seconds)."""

    places: dict[BackendKey, BackendStats]
    at: float

    def circuit(self, extension: str, host: str | None) -> Circuit:
        """Whether a place may be tried."""
        return circuit_breaker.circuit(self.places.get((extension, host), NO_STATS), self.at)

    def create_seconds(self, extension: str, host: str | None) -> float | None:
        """The measured time of a create there; None when there is none."""
        return circuit_breaker.mean_create_seconds(self.places.get((extension, host), NO_STATS), self.at)


class HealthStore:
    """What is known of the places. May be used by any thread and process; never raises."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = now, limits: Limits = DEFAULT) -> None:
        self._document = AtomicDocument(directory / FILE, lock_seconds=limits.health_lock)
        self._limits = limits
        self._clock = clock
        self._parsed = ParseCache(self._document, _parse)
        self._writing = threading.Lock()

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return self._document.path

    def seen(self) -> HealthSnapshot:
        """What is known now, read once for many questions."""
        return HealthSnapshot(self._places()[1], self._clock())

    def circuit(self, extension: str, host: str | None) -> Circuit:
        """Whether a place may be tried now."""
        return self.seen().circuit(extension, host)

    def create_seconds(self, extension: str, host: str | None) -> float | None:
        """The measured time of a create there; None when there is none."""
        return self.seen().create_seconds(extension, host)

    def admit(self, extension: str, host: str | None) -> str | None:
        """Ask for a turn there; why there is none, or None. Takes the one try of a half-open place."""
        if self.circuit(extension, host) == "closed":
            return None  # the usual case costs no write
        taken: list[Circuit] = []

        def take(health: BackendStats) -> BackendStats:
            taken.append(found := circuit_breaker.circuit(health, self._clock()))
            return circuit_breaker.with_probe(health, self._clock()) if found == "half-open" else health

        self._change(extension, host, take)
        return "it failed again and again just now" if taken[-1:] == ["open"] else None

    def succeeded(self, extension: str, host: str | None, seconds: float | None) -> None:
        """A create succeeded there, and took `seconds` (None: not typical, so not measured)."""
        known, at = self._of(extension, host), self._clock()
        unchanged = known.failures == 0 and known.opened_at is None
        if unchanged and (seconds is None or (known.count and 0 <= at - known.changed_at < self._limits.health_write)):
            return
        self._change(extension, host, lambda health: circuit_breaker.after_success(health, self._clock(), seconds))

    def failed(self, extension: str, host: str | None) -> None:
        """The backend failed there."""
        self._change(extension, host, lambda health: circuit_breaker.after_failure(health, self._clock()))

    def undecided(self, extension: str, host: str | None) -> None:
        """A create ended there in a way that says nothing of the backend."""
        if self._of(extension, host).probe_at is not None:
            self._change(extension, host, circuit_breaker.without_probe)

    def complaint(self) -> str | None:
        """What is wrong with the file, for `doctor`; None when it can be used, or is not there."""
        try:
            reading = self._document.read()
            if reading is not None:
                _parse(reading.data or b"")
        except SandboxerError as error:
            return error.message
        except (msgspec.MsgspecError, ValueError) as error:
            return f"{self.path}: {error}"
        return None

    # -- the file -------------------------------------------------------------------------------------------------

    def _of(self, extension: str, host: str | None) -> BackendStats:
        return self._places()[1].get((extension, host), NO_STATS)

    def _places(self) -> HealthVersion:
        """What the file says; nothing when it cannot be read."""
        try:
            return self._parsed.read() or (0, {})
        except (SandboxerError, msgspec.MsgspecError, ValueError):
            return 0, {}

    def _change(self, extension: str, host: str | None, change: Callable[[BackendStats], BackendStats]) -> None:
        with suppress(SandboxerError, OSError), self._writing, self._document.locked():
            revision, known = self._places()
            places = dict(known)
            before = places.get((extension, host), NO_STATS)
            after = change(before)
            if after == before:
                return
            places[extension, host] = after
            oldest = self._clock() - self._limits.health_kept
            kept = [
                BackendEntry(extension=place[0], host=place[1], health=health)
                for place, health in sorted(places.items(), key=lambda item: (item[0][0], item[0][1] or ""))
                if health.changed_at > oldest or place == (extension, host)
            ]
            document = BackendHealthDocument(revision=revision + 1, places=kept)
            self._document.replace(msgspec.json.encode(document) + b"\n")


def _parse(data: bytes) -> HealthVersion:
    document = msgspec.json.decode(data, type=BackendHealthDocument)
    if document.schema_version != VERSION:
        raise ValueError(f"schema_version {document.schema_version} is not {VERSION}")
    return document.revision, {(entry.extension, entry.host): entry.health for entry in document.places}
