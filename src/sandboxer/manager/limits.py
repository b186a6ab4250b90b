"""Every time limit of the manager, with its default and its meaning, in seconds."""

from __future__ import annotations

from typing import Final

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long the manager waits, and for what. `Services.limits` holds them; tests give others."""

    create: float = 900.0
    """A create, up to ready, unless `--timeout` says otherwise."""
    reach_host: float = 20.0
    """A host may take this long to answer while another candidate could be tried."""
    find_lost: float = 30.0
    """The look for what a create made whose answer was lost."""
    fair_create: float = 30.0
    """A time-out speaks of the backend's health when the create had at least this long; below, its caller was in a
    hurry."""
    cancellation_poll: float = 0.5
    """Between two looks whether what is being created is still wanted."""

    destroy: float = 300.0
    """A teardown, unless `--timeout` says otherwise."""
    rollback: float = 120.0
    """Taking back what a failed create has made."""
    quick_rollback: float = 8.0
    """The same after Ctrl-C: the command ends within 10 s (promise 3)."""
    rollback_grace: float = 3.0
    """Beyond the end of a create's own time, for its place to answer: one that does not is left to `reconcile` (promise
    22: the command is back within its deadline + 5 s)."""
    meter: float = 5.0
    """Asking a backend what a sandbox was allotted, before it is torn down."""

    stop: float = 120.0
    """Stopping a sandbox at its backend, unless `--timeout` says otherwise."""
    start: float = 300.0
    """Starting it again, unless `--timeout` says otherwise."""
    wait: float = 900.0
    """Waiting for a state of a sandbox, unless `--timeout` says otherwise."""
    snapshot: float = 3600.0
    """Taking a snapshot, unless `--timeout` says otherwise."""
    snapshot_lock: float = 10.0
    """Waiting for who works on a snapshot before it is deleted."""
    renew: float = 60.0
    """Telling a backend of a later end."""
    logs: float = 120.0
    """Reading logs that are not followed."""
    check_paths: float = 60.0
    """Looking whether somebody else could change what is run on a host."""
    inspect: float = 30.0
    """One look at one backend or host."""
    resolve_token: float = 30.0
    """Reading a token of the HTTP API by its reference."""

    refresh: float = 5.0
    """Asking whether a sandbox runs: for `get --refresh` and `expire`, and after a verb that failed on that."""
    sweep_one: float = 120.0
    """What a sweep does to one sandbox."""
    stale_grace: float = 600.0
    """A resource without a record is left alone until it is this old: its record may be on its way back. So is a record
    whose owner cannot be proved dead."""

    warning: float = 300.0
    """So long before its hard end a sandbox is told to be expiring."""

    clock_jump: float = 300.0
    """By more than this the wall clock must not have gone apart from the uptime since the last `expire`."""
    sweep_overdue: float = 900.0
    """So long after the last `expire` without a remainder, or after an end that nobody saw to, `doctor` says so."""

    provider_end: float = 5.0
    """By so much a provider may end a sandbox earlier than agreed before that counts as less than was asked: clocks
    differ."""
    seen_again: float = 60.0
    """After so long `expire` records again that a sandbox at a provider was seen to run."""
    replaced_charge: float = 10.0
    """For so long a sandbox that is to be replaced may go on being charged until its destroy is requested."""
    min_funded: float = 60.0
    """Less than so much more time is not worth a write."""

    retry_live: int = 30
    """When to try again while too many sandboxes live: nobody knows when one ends."""
    retry_exec: int = 2
    """When to try again while too many commands run."""

    health_lock: float = 1.0
    """Waiting for the lock of `health.json`: advice is not worth a longer wait."""
    health_write: float = 5.0
    """Between two writes of a success that changes nothing, for one place."""
    health_kept: float = 30 * 86400.0
    """A place that nothing was heard of for so long is forgotten."""


DEFAULT: Final = Limits()
