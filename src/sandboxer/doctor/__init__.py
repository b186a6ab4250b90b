"""What is there, here and on each host; what is missing; and what to type to mend it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from sandboxer.bootstrap import Installation, install
from sandboxer.doctor import keys
from sandboxer.doctor.finding import LOOK_SECONDS, Finding, of_error
from sandboxer.errors import Conflict, Invalid, NotFound, SandboxerError, StoreCorrupt
from sandboxer.manager.copies import path_checks
from sandboxer.manager.tokens import TokenVerifier
from sandboxer.store.json_store import JsonStore
from sandboxer.timing import Deadline, rfc3339

__all__ = ["Finding", "examine", "mend"]

LOCAL_PROGRAMS = {
    "ssh": "apt-get install openssh-client (needed for hosts over SSH)",
    "rsync": "apt-get install rsync (trees travel as tar without it)",
}


def examine() -> list[Finding]:
    """Look at everything; nothing is changed."""
    try:
        here = install(relay_in_background=False)
    except SandboxerError as error:
        return [of_error("configuration", error, level="error")]
    try:
        return [
            *_store(here),
            *_credits(here),
            *_tokens(here),
            *_programs(),
            *_hosts(here),
            *keys.credentials(here),
            *keys.openbao(here),
            *keys.private(here),
            *_catalog(here),
            *_health(here),
            *_sweeps(here),
            *_events(here),
        ]
    finally:
        here.close()


def _store(here: Installation) -> Iterator[Finding]:
    try:
        records = here.store.list()
    except StoreCorrupt as error:
        hint = "run `sandboxer doctor --repair`: it sets the file aside and brings back what the backends show"
        yield Finding(subject="store", level="error", text=error.message, hint=hint)
        return
    except SandboxerError as error:
        yield of_error("store", error, level="error")
        return
    yield Finding(subject="store", level="ok", text=f"{here.paths.data}: {len(records)} live records")
    try:
        path_checks.check_data_directory(here.manager.services)
    except SandboxerError as error:
        yield of_error("data directory", error, level="error")
    try:
        path_checks.check_snapshot_store(here.manager.services)
    except SandboxerError as error:
        yield of_error("snapshots", error, level="error")
    if (owner := path_checks.foreign_data_owner(here.manager.services)) is not None:
        yield Finding(
            subject="data directory",
            level="warning",
            text=f"{here.paths.data} belongs to uid {owner}: root does what that user's records say",
            hint="run sandboxer as that user, or set SANDBOXER_DATA_DIR to a directory of root's",
        )


def _tokens(here: Installation) -> Iterator[Finding]:
    core = here.manager.services
    try:
        live = sum(one.state == "live" for one in here.manager.list_tokens())
    except SandboxerError as error:
        hint = f"nobody is let in: put a copy of {core.tokens.path} back, or move it away and make the tokens anew"
        yield Finding(subject="tokens", level="error", text=error.message, hint=hint)
        return
    try:
        TokenVerifier(core)
    except SandboxerError as error:  # `serve` would say so, and not start
        yield of_error("tokens", error, level="warning")
    else:
        if live:
            yield Finding(subject="tokens", level="ok", text=f"{live} let in over HTTP")


def _programs() -> Iterator[Finding]:
    for program, hint in LOCAL_PROGRAMS.items():
        path = shutil.which(program)
        if path is None:
            yield Finding(subject=program, level="warning", text="not found here", hint=hint)
        else:
            yield Finding(subject=program, level="ok", text=path)


def _hosts(here: Installation) -> Iterator[Finding]:
    for name in ["local", *(host for host in here.settings.hosts if host != "local")]:
        deadline = Deadline(LOOK_SECONDS)
        try:
            host = here.hosts.open(name)
            host.connect(deadline)
        except SandboxerError as error:
            yield of_error(f"host {name}", error, level="error")
            continue
        work_dir = host.work_dir(deadline)
        yield Finding(subject=f"host {name}", level="ok", text=f"answers; work directory {work_dir}")
        try:
            host.check_place(work_dir, deadline)
        except SandboxerError as error:
            yield of_error(f"work directory on {name}", error, level="error")
        yield from _backends(here, name)


def _backends(here: Installation, host: str) -> Iterator[Finding]:
    core = here.manager.services
    try:
        manifests = core.extensions.manifests()
    except (Invalid, NotFound):
        return  # said below, of the extensions
    for manifest in manifests:
        if not manifest.self_hosted:
            continue
        subject = f"{manifest.id} on {host}"
        try:
            core.extensions.get(manifest.id).check(core.extension_context(manifest.id, host, Deadline(LOOK_SECONDS)))
        except SandboxerError as error:
            yield of_error(subject, error, level="warning")  # not every backend is wanted on every host
        else:
            yield Finding(subject=subject, level="ok", text="can be used")


def _catalog(here: Installation) -> Iterator[Finding]:
    try:
        here.manager.manifests()
    except SandboxerError as error:
        yield of_error("extensions", error, level="error")
    try:
        count = len(here.manager.validate_profiles([]))
    except (Invalid, NotFound) as error:
        yield of_error("profiles", error, level="error")
    else:
        yield Finding(subject="profiles", level="ok", text=f"{count} valid")


def _health(here: Installation) -> Iterator[Finding]:
    health = here.manager.services.health
    complaint = health.complaint()
    if complaint is not None:
        yield Finding(
            subject="health",
            level="warning",
            text=f"routes decide without what was measured: {complaint}",
            hint=f"nothing is lost: the next create starts it afresh, or remove {health.path}",
        )


def _sweeps(here: Installation) -> Iterator[Finding]:
    """Whether somebody runs `expire`: without it nothing ends by itself."""
    services = here.manager.services
    now, late = services.clock(), services.limits.sweep_overdue
    try:
        ends = [record.expires_at for record in here.store.list() if record.expires_at is not None]
    except SandboxerError:
        return  # said above, of the store
    log = services.sweeps.seen()
    last = rfc3339(log.last_success) or "never"
    overdue = sum(end < now - late for end in ends)
    hint = "run `sandboxer expire --apply`, and have it run every five minutes: `sandboxer install-units`"
    if overdue:
        text = f"{overdue} sandboxes are over and still there; the last run that left nothing: {last}"
        yield Finding(subject="expire", level="warning", text=text, hint=hint)
    elif ends and (log.last_success is None or log.last_success < now - late):
        text = f"{len(ends)} sandboxes have an end, and the last run of expire that left nothing: {last}"
        yield Finding(subject="expire", level="warning", text=text, hint=hint)
    else:
        yield Finding(subject="expire", level="ok", text=f"the last run that left nothing: {last}")


def _credits(here: Installation) -> Iterator[Finding]:
    try:
        balance = here.manager.credits()
        waiting = here.manager.unsettled()
    except StoreCorrupt as error:
        newer = error.details is not None
        hint = (
            error.hint
            if newer
            else f"put a copy of {here.manager.services.credits.path} back; or move it away, and add what is left with "
            "`sandboxer credits add` (what was spent is in `sandboxer usage list`)"
        )
        yield Finding(subject="credits", level="error", text=error.message, hint=hint)
        return
    except SandboxerError as error:
        yield of_error("credits", error, level="error")
        return
    if waiting:
        text = f"{len(waiting)} sandboxes have ended and are not in the book: {', '.join(waiting[:5])}"
        yield Finding(subject="credits", level="warning", text=text, hint="run `sandboxer expire --apply`")
    if balance.added_usd == "0":
        yield Finding(subject="credits", level="ok", text="none were added; only free sandboxes can be created")
    else:
        text = f"{balance.available_usd} of {balance.balance_usd} {balance.currency} are available"
        yield Finding(subject="credits", level="ok", text=text)


def _events(here: Installation) -> Iterator[Finding]:
    for subject, sink, url in (
        ("state hub", "state-hub", here.settings.state_hub.url),
        ("fin-hub", "fin-hub", here.settings.fin_hub.url),
    ):
        if url is None:
            yield Finding(subject=subject, level="ok", text="off (no URL is set)")
            continue
        try:
            events = [event for event in here.store.events() if event.sink == sink]
        except SandboxerError:
            return  # said above, of the store
        waiting = [event for event in events if event.status == "pending"]
        parked = [event for event in events if event.status == "parked"]
        if parked:
            text = f"{len(parked)} events were refused for good: {parked[-1].note or 'no reason given'}"
            yield Finding(subject=subject, level="warning", text=text, hint="run `sandboxer events list`")
        level: Literal["ok", "warning"] = "warning" if waiting else "ok"
        hint = "run `sandboxer events flush`" if waiting else ""
        yield Finding(subject=subject, level=level, text=f"{len(waiting)} events are waiting", hint=hint)


def mend() -> list[Finding]:
    """Set an unreadable store aside, its bytes kept, and write records for what the backends still show."""
    here = install(relay_in_background=False)
    try:
        aside = _set_aside(here.store)
        restored = here.manager.rebuild_records()
        found = [
            Finding(subject=f"sandbox {record.id}", level="ok", text=f"brought back, {record.state}, on {record.host}")
            for record in restored.records
        ]
        found += [
            Finding(
                subject=f"{place.extension} on {place.host}",
                level="error",
                text=place.why,
                hint="make it answer, then run `sandboxer doctor --repair` again",
            )
            for place in restored.unseen
        ]
        if aside is not None:
            found.insert(0, Finding(subject="store", level="ok", text=f"the unreadable file is now {aside}"))
        elif not found:
            found.append(Finding(subject="store", level="ok", text="readable, and no record is missing"))
        return found
    finally:
        here.close()


def _set_aside(store: JsonStore) -> Path | None:
    try:
        return store.set_aside()
    except Conflict:
        return None  # it can be read, or there is none
