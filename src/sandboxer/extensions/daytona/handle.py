"""Keep what is needed of a sandbox in its handle, and tell what "not found" proves."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from sandboxer.extensions.base import from_handle as read_handle
from sandboxer.extensions.daytona.sandbox import DaytonaSandbox
from sandboxer.extensions.provider import account
from sandboxer.models import Handle, Value
from sandboxer.names import sandbox_id_of

VERSION: Final = 1
LATE_SECONDS: Final = 15 * 60
"""How long after the agreed end a sandbox is held to have ended by Daytona's own timer: it counts in minutes, and
destroying takes some."""


class DaytonaHandleData(Value, frozen=True, kw_only=True):
    """The data of the handle of a sandbox, or of a snapshot (`kind`).

    `name` is unique in the organization and known before anything is made; `id` is Daytona's own, once it has been
    told. `base` is the API at which it was made. `key` is the beginning of a digest of the API key: it tells whether a
    later "not found" comes from the same account, and nothing of the key. `until`: when Daytona ends it by itself.
    `keeps`: the minutes that it outlives a stop (negative: for good). `ports` and `ssh` are what its descriptor tells.
    `seen`: as the answer to its create showed it, when it had started by then.
    """

    name: str
    base: str
    key: str
    kind: Literal["sandbox", "snapshot"] = "sandbox"
    id: str | None = None
    toolbox: str | None = None
    until: float | None = None
    keeps: int = 0
    ports: list[int] = []
    ssh: bool = False
    seen: DaytonaSandbox | None = None

    @property
    def sandbox_id(self) -> str | None:
        """Ours, for messages."""
        return sandbox_id_of(self.name)


def to_handle(data: DaytonaHandleData) -> Handle:
    """Make a handle of the data."""
    return Handle(version=VERSION, data=msgspec.to_builtins(data))


def from_handle(handle: Handle) -> DaytonaHandleData:
    """Read the data of a handle. Raises Conflict for a handle of another version."""
    return read_handle(handle, DaytonaHandleData, version=VERSION)


def check_base(data: DaytonaHandleData, base: str) -> None:
    """Raise NotConfigured when the sandbox was made at another API than the one that is configured now."""
    account.check_address(data.name, data.base, base, variable="DAYTONA_API_URL")


def proves_absence(data: DaytonaHandleData, key: str, *, now: float) -> bool:
    """Tell whether "not found", seen with a key of this fingerprint, means that the sandbox is gone. Pure."""
    over_at = None if data.until is None else data.until + LATE_SECONDS
    return account.proves_absence(data.key, key, over_at=over_at, now=now)


def check_absence_proved(data: DaytonaHandleData, key: str, *, now: float) -> None:
    """Raise BackendError unless "not found", seen with a key of this fingerprint, means that it is gone. Pure."""
    if not proves_absence(data, key, now=now):
        raise account.other_key(data.name, provider="Daytona", variables="DAYTONA_API_KEY")
