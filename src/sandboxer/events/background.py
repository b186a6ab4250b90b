"""Start the relay in the background when events are pending. Imports neither HTTP nor URLs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sandboxer.errors import SandboxerError
from sandboxer.events.relay_lock import acquire_relay_lock, lock_name
from sandboxer.hosts.process.detach import detach
from sandboxer.models import HubSettings
from sandboxer.store.base import Store
from sandboxer.timing import Deadline

_NEWEST: Final = 50
_NOBODY: Final = HubSettings()


def start_relay_process(
    store: Store,
    endpoint: HubSettings,
    directory: Path,
    argv: Sequence[str],
    *,
    fin_hub: HubSettings = _NOBODY,
    env: Mapping[str, str] | None = None,
) -> int | None:
    """Start `argv`, which runs the relays, as a process of its own if something waits for a neighbour (`endpoint` is
    the State Hub) to which no relay is at work.

    Costs a command about 1 ms, whatever the hubs do. Its pid, or None. Never fails: an event that could not be sent
    on waits in the store for the next command."""
    reached = {sink for sink, one in (("state-hub", endpoint), ("fin-hub", fin_hub)) if one.url}
    if not reached:
        return None
    try:
        waits = {event.sink for event in store.events(limit=_NEWEST) if event.status == "pending"}
        if all(_at_work(directory, sink) for sink in waits & reached):
            return None
        return detach(argv, env=env)
    except SandboxerError:
        return None


def _at_work(directory: Path, sink: str) -> bool:
    with acquire_relay_lock(directory / lock_name(sink), Deadline(0)) as got:
        return not got
