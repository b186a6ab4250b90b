"""Inspect and reap what is stale, starting from the hosts and providers: resources without a live record, records whose
resources have vanished, and what other installations left on the hosts of this one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sandboxer.errors import BackendError, Invalid, SandboxerError
from sandboxer.extensions.base import Found
from sandboxer.manager.services import Services
from sandboxer.manager.sweeps.reconcile import done_safely, look_at, settle_record, too_many
from sandboxer.manager.sweeps.report import (
    Action,
    Remaining,
    Report,
    caught,
    failed_action,
    location_lane,
    run_in_lanes,
    sweep_report,
)
from sandboxer.manager.sweeps.stale import find_stale, list_everywhere, old_enough, reap_stale
from sandboxer.models import Sandbox, Value
from sandboxer.names import ID, LABEL_EXPIRES, LABEL_INSTALL, LABEL_PROFILE, MARKER_FILE, resource_name
from sandboxer.routing import LOCAL
from sandboxer.state import USABLE, State
from sandboxer.timing import Deadline, rfc3339

INSTALL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{3,63}")
_MARKER_BYTES: Final = 65536
# $1 is the work directory. A marker may lie where a container can write: it counts where there is no other, no link is
# followed, no more than a little is read. Each is one line; what is written over several is not ours.
_MARKERS: Final = f"""cd -- "$1" 2>/dev/null || {{ [ ! -e "$1" ] && exit 0; exit 1; }}
for f in sbx-*/{MARKER_FILE} .sandboxer/sbx-*/marker.json; do
  [ -f "$f" ] && [ ! -L "$f" ] && [ ! -L "${{f%/*}}" ] || continue
  case $f in sbx-*) [ ! -e ".sandboxer/${{f%/*}}/marker.json" ] || continue ;; esac
  printf '%s\\n' "$f"; head -c {_MARKER_BYTES} -- "$f" | tr '\\n' ' '; echo
done
exit 0
"""


class StaleItem(Value, frozen=True, kw_only=True):
    """A resource without a live record (`kind: resource`), or a record whose resources have vanished (`record`)."""

    kind: str
    sandbox_id: str | None
    why: str
    host: str | None
    extension: str


class ForeignSandbox(Value, frozen=True, kw_only=True):
    """What another installation of sandboxer has on a host of this one."""

    install: str
    sandbox_id: str
    host: str
    profile: str | None
    expires_at: str | None
    over: bool


class StaleReport(Value, frozen=True, kw_only=True):
    """What is stale, what belongs to others, and where one could not look."""

    stale: list[StaleItem]
    foreign: list[ForeignSandbox]
    remaining: list[Remaining]


def inspect_stale(services: Services, *, grace: float) -> StaleReport:
    """What `reap` would take, without its limit, and what other installations have on our hosts. Changes nothing."""
    actions, remaining, _ = _plan(services, grace)
    foreign, unseen = _foreign(services)
    # a host that does not answer is told once
    told = {item.host for item in remaining}
    return StaleReport(
        stale=[
            StaleItem(
                kind="resource" if action.action == "remove" else "record",
                sandbox_id=action.sandbox_id,
                why=action.why,
                host=action.host,
                extension=action.extension,
            )
            for action in actions
        ],
        foreign=foreign,
        remaining=[*remaining, *(item for item in unseen if item.host not in told)],
    )


def reap(services: Services, *, apply: bool, force: bool, grace: float, install: str | None = None) -> Report:
    """Take away what is stale and older than `grace`; with `install` what that other installation left, and of ours
    nothing. More than a few at once only with `force`."""
    if install is not None and not INSTALL.fullmatch(install):
        raise Invalid(f"{install[:80]!r} is no installation's id", hint="run `sandboxer inspect stale`: it lists them")
    if install is None or install == services.store.install_id:
        install = None
        actions, remaining, known = _plan(services, grace)
    else:
        actions, remaining, known = _plan_foreign(services, install, grace, force=force)
    if too_many(len(actions), known) and not force:
        words = f"{len(actions)} of {known} would go at once: use --force if that is right"
        remaining = [*remaining, *(_held(action, words) for action in actions)]
        actions = []
    if not apply:
        return Report(actions=actions, remaining=remaining)
    done = run_in_lanes(
        actions, lambda one: done_safely(one, lambda: _do(services, one, grace, install, force)), lane=location_lane
    )
    report = sweep_report(done)
    return msgspec.structs.replace(report, remaining=[*remaining, *report.remaining])


def _plan(services: Services, grace: float) -> tuple[list[Action], list[Remaining], int]:
    """What is stale of this installation, what could not be looked at, and how much is known in all."""
    records = services.store.list()
    gone, unsettled = _vanished(services, records, grace)
    stale, unseen, shown = find_stale(services, records, grace)
    return [*stale, *gone], [*unseen, *unsettled], len(records) + shown


def _vanished(services: Services, records: Sequence[Sandbox], grace: float) -> tuple[list[Action], list[Remaining]]:
    """The records in use or stopped, older than the grace period, of which the backend shows nothing, or a part that
    cannot run again. Other records are `reconcile`'s."""
    now = services.clock()
    settled = {*USABLE, State.STOPPED}
    old = [record for record in records if record.state in settled and now - record.created_at > grace]
    looked = run_in_lanes(old, lambda record: look_at(services, record, grace), lane=location_lane)
    return (
        [item for item in looked if isinstance(item, Action) and item.action == "fail"],
        [item for item in looked if isinstance(item, Remaining)],
    )


def _plan_foreign(
    services: Services, install: str, grace: float, *, force: bool
) -> tuple[list[Action], list[Remaining], int]:
    """What another installation left: the places are ours, its records are not to be had."""
    seen, unseen = list_everywhere(services, services.store.list(), install=install)
    actions, held = [], []
    for extension, host, found in seen:
        action = Action(
            sandbox_id=found.sandbox_id,
            action="remove",
            why=f"installation {install} left {found.detail or resource_name(found.sandbox_id)}",
            host=host,
            extension=extension,
        )
        kept = _kept(found, services.clock(), grace, force=force)
        if kept is None:
            actions.append(action)
        else:
            held.append(_held(action, kept))
    return actions, [*unseen, *held], len(seen)


def _kept(found: Found, now: float, grace: float, *, force: bool) -> str | None:
    """Why a sandbox of another installation stays; None when it may go. Whether it is in use cannot be told from here,
    only how long it was to live."""
    if not old_enough(found, now, grace):
        return "it is younger than the grace period, or does not tell its age"
    if force:
        return None
    if found.expires_at is None:
        return "it tells no expiry: use --force if its installation is gone"
    if found.expires_at + grace > now:
        return f"it may live until {rfc3339(found.expires_at)}: use --force if its installation is gone"
    return None


def _held(action: Action, words: str) -> Remaining:
    return Remaining(
        why=f"{action.why}; {words}", host=action.host, extension=action.extension, sandbox_id=action.sandbox_id
    )


def _do(services: Services, action: Action, grace: float, install: str | None, force: bool) -> Action:
    if action.action != "remove":
        return settle_record(services, action, grace)
    if install is None:
        return reap_stale(services, action)
    return _reap_foreign(services, action, install, grace, force=force)


def _reap_foreign(services: Services, action: Action, install: str, grace: float, *, force: bool) -> Action:
    """Take away what another installation left, after one more look: it may have been renewed. Its locks are on
    another machine, or in another data directory."""
    deadline = Deadline(services.limits.sweep_one)
    try:
        context = services.extension_context(action.extension, action.host, deadline, install=install)
        extension = services.extensions.get(action.extension)
        still = [found for found in extension.inventory(context) if found.sandbox_id == action.sandbox_id]
        for found in still:
            kept = _kept(found, services.clock(), grace, force=force)
            if kept is not None:
                return msgspec.structs.replace(action, outcome="skipped", why=kept)
            extension.teardown(found.handle, context)
    except SandboxerError as error:
        return failed_action(action, error)
    return msgspec.structs.replace(action, outcome="done")


# -- other installations ----------------------------------------------------------------------------------------------


def _foreign(services: Services) -> tuple[list[ForeignSandbox], list[Remaining]]:
    """What others have in the work directories of our hosts, by the marker files. Providers show no one else's."""
    hosts = {LOCAL, *services.settings.hosts, *(record.host for record in services.store.list() if record.host)}
    looks = run_in_lanes(sorted(hosts), lambda host: _foreign_on(services, host), lane=lambda host: host)
    found = [item for look in looks if not isinstance(look, Remaining) for item in look]
    return found, [look for look in looks if isinstance(look, Remaining)]


def _foreign_on(services: Services, host: str) -> list[ForeignSandbox] | Remaining:
    def unseen(error: SandboxerError) -> list[ForeignSandbox] | Remaining:
        return Remaining(why=error.message, host=host, extension="any", error=error.document())

    def look() -> list[ForeignSandbox] | Remaining:
        return _markers_on(services, host)

    return caught(look, unseen)


def _markers_on(services: Services, host: str) -> list[ForeignSandbox]:
    deadline = Deadline(services.limits.inspect)
    opened = services.open_host(host)
    opened.connect(deadline)
    done = opened.run(["sh", "-c", _MARKERS, "sh", opened.work_dir(deadline)], deadline)
    if done.code:
        raise BackendError(f"the work directory of {host} could not be looked into: {done.complaint}")
    return parse_markers(done.text, host=host, own=services.store.install_id, now=services.clock())


def parse_markers(text: str, *, host: str, own: str, now: float) -> list[ForeignSandbox]:
    """The sandboxes of other installations, of what the look wrote: a path and a marker in turn. What is no marker is
    passed over: anybody may have put it there."""
    lines = text.split("\n")
    found: dict[tuple[str, str], ForeignSandbox] = {}
    for path, body in zip(lines[::2], lines[1::2], strict=False):
        labels = _labels(body)
        install, sandbox_id = labels.get(LABEL_INSTALL), labels.get("sandboxer.id")
        if not isinstance(install, str) or not INSTALL.fullmatch(install) or install == own:
            continue
        if not isinstance(sandbox_id, str) or not ID.fullmatch(sandbox_id) or resource_name(sandbox_id) not in path:
            continue
        profile, expires = labels.get(LABEL_PROFILE), _seconds(labels.get(LABEL_EXPIRES))
        found[install, sandbox_id] = ForeignSandbox(
            install=install,
            sandbox_id=sandbox_id,
            host=host,
            profile=profile[:80] if isinstance(profile, str) else None,
            expires_at=rfc3339(expires),
            over=expires is not None and expires < now,
        )
    return [found[key] for key in sorted(found)]


def _labels(body: str) -> dict[str, Any]:
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(read, dict) and isinstance(read.get("labels"), dict):
        return dict(read["labels"])
    return dict(read) if isinstance(read, dict) else {}


def _seconds(value: object) -> float | None:
    """Unix seconds of a label, where they are some that a calendar has."""
    try:
        found = float(value) if isinstance(value, str | int | float) else None
    except (ValueError, OverflowError):
        return None
    return found if found is not None and 0 < found < 253_402_300_800 else None
