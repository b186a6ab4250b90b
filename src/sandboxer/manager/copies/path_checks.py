"""Refuse to run anything from where somebody else can write: the work directory on the host, and our own data."""

from __future__ import annotations

import os
from pathlib import Path

from sandboxer.hosts.trees import strict_modes
from sandboxer.manager.services import Services
from sandboxer.models import Sandbox
from sandboxer.names import resource_name
from sandboxer.timing import Deadline


def check_sandbox_paths(services: Services, record: Sandbox, deadline: Deadline | None = None) -> None:
    """Raise Denied when somebody else could change what is run for a sandbox; says what to type."""
    if record.host is None:
        return  # a provider's: it runs nothing of ours here
    check_data_directory(services)
    deadline = deadline or Deadline(services.limits.check_paths)
    host = services.open_host(record.host)
    made_in = ""
    if record.reachability is not None and record.reachability.remote_dir:
        above, found, _ = record.reachability.remote_dir.partition(f"/{resource_name(record.id)}")
        made_in = above if found else ""  # config.yaml may name another place by now
    host.check_place(made_in or host.work_dir(deadline), deadline)


def check_host_paths(services: Services, name: str) -> None:
    """Raise Denied when somebody else could change what would be run for a new sandbox on a host."""
    check_data_directory(services)
    deadline = Deadline(services.limits.check_paths)
    host = services.open_host(name)
    host.check_place(host.work_dir(deadline), deadline)


def check_data_directory(services: Services) -> None:
    """Raise Denied when somebody else could change our records. Root may work on another user's data, and then does
    what that user's records say: it is told by `doctor`, and all others are still kept out."""
    _check_own(services, services.credits.path.parent, setting="SANDBOXER_DATA_DIR")


def check_snapshot_store(services: Services) -> None:
    """Raise Denied when somebody else could put another directory in the place of the one where files of snapshots are
    kept: they would read them, and say what is restored."""
    if services.settings.snapshots.store is not None:  # else it is below the data directory
        _check_own(services, services.snapshot_files, setting="snapshots.store")


def _check_own(services: Services, place: Path, *, setting: str) -> None:
    fault = strict_modes.examine(place, trusted=foreign_data_owner(services) or 0)
    if fault is not None:
        user = strict_modes.this_user()
        raise strict_modes.refusal(fault, str(place), host="this machine", user=user, setting=setting)


def foreign_data_owner(services: Services) -> int | None:
    """The other user whose data root works on; None when they are its own, or not there yet."""
    try:
        owner = services.credits.path.parent.stat().st_uid
    except FileNotFoundError:
        return None
    return owner if os.geteuid() == 0 and owner != 0 else None
