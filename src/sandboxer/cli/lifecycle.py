"""create, get, list, destroy, recreate, extend-ttl, set-ttl, stop, start."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import typer

from sandboxer.cli.options import (
    Actor,
    DryRun,
    Host,
    Input,
    Json,
    KeepFailed,
    Label,
    Name,
    Profile,
    SandboxId,
    Timeout,
    Ttl,
    installation,
)
from sandboxer.cli.output import emit, facts, note, paint, say, table, wants_json, wrapped
from sandboxer.cli.progress import Progress
from sandboxer.cli.routing import show_decisions
from sandboxer.config.paths import working_directory
from sandboxer.errors import Conflict, Partial, SandboxerError
from sandboxer.manager import SandboxManager
from sandboxer.models import Request, Sandbox
from sandboxer.names import parse_pairs
from sandboxer.state import LIVE
from sandboxer.timing import brief, format_duration, parse_duration, remaining, rfc3339


def create(
    profile: Profile = None,
    input_: Input = None,
    ttl: Ttl = None,
    host: Host = None,
    name: Name = None,
    label: Label = None,
    actor: Actor = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="K", help="Asking again with the same key gives the same sandbox.")
    ] = None,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Answer at once; the work goes on by itself.")] = False,
    keep_failed: KeepFailed = False,
    json: Json = False,
) -> None:
    """Establish a sandbox and wait until it is ready; without options, the canary."""
    as_json = wants_json(json)
    with installation() as here:
        manager = here.manager
        request = request_of(
            here.settings.defaults.profile if profile is None else profile,
            inputs=input_,
            ttl=ttl,
            host=host,
            name=name,
            labels=label,
            timeout=timeout,
            keep_failed=keep_failed,
        )
        plan = manager.plan(request, actor=actor, idempotency_key=idempotency_key, base=working_directory())
        if dry_run:
            show_plan(manager.dry_run(plan), as_json=as_json)
        elif no_wait:
            show_sandbox(manager.document(here.create_detached(plan)), as_json=as_json)
        else:
            with Progress(quiet=as_json) as progress:
                record = manager.create(plan, progress=progress)
            show_sandbox(manager.document(record), as_json=as_json)


def request_of(
    profile: str,
    *,
    inputs: list[str] | None,
    ttl: str | None,
    host: str | None,
    name: str | None,
    labels: list[str] | None,
    timeout: str | None,
    keep_failed: bool,
) -> Request:
    """What the options of a create ask for; raises Invalid."""
    return Request(
        profile=profile,
        inputs=dict(parse_pairs(inputs or [], what="input")),
        host=host,
        name=name,
        labels=parse_pairs(labels or [], what="label"),
        ttl=None if ttl is None else parse_duration(ttl, what="--ttl"),
        keep_failed=keep_failed,
        timeout=None if timeout is None else parse_duration(timeout, what="--timeout"),
    )


def get(
    sandbox_id: SandboxId,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask the backend (5 s at most); without, show what was last known.")
    ] = False,
    json: Json = False,
) -> None:
    """Show one sandbox."""
    with installation() as here:
        show_sandbox(here.manager.document(here.manager.get(sandbox_id, refresh=refresh)), as_json=wants_json(json))


def list_(
    state: Annotated[list[str] | None, typer.Option(metavar="S", help="Only in this state; repeatable.")] = None,
    profile: Annotated[str | None, typer.Option(metavar="P", help="Only of this profile.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Only with this label; repeatable.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also the sandboxes that have ended.")] = False,
    json: Json = False,
) -> None:
    """List sandboxes."""
    with installation() as here:
        wanted = parse_pairs(label or [], what="label")
        found = here.manager.list(states=state or (), profile=profile, labels=wanted, ended=all_)
        documents = [here.manager.document(record) for record in found]
        if wants_json(json):
            emit({"sandboxes": documents})
            return
        rows = [_row(document, record) for document, record in zip(documents, found, strict=True)]
        table(
            ["ID", "NAME", "PROFILE", "HOST", "STATE", "EXPIRES"],
            rows,
            empty="no such sandboxes" if state or profile or wanted else "no sandboxes; `sandboxer create` makes one",
        )


def destroy(
    sandbox_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, unique prefixes, or names.")],
    force: Annotated[bool, typer.Option("--force", help="Do not ask, also when one is in use.")] = False,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Take sandboxes away, in whatever state they are; again is fine."""
    as_json = wants_json(json)
    seconds = None if timeout is None else parse_duration(timeout, what="--timeout")
    with installation() as here:
        manager = here.manager
        if not force and not as_json and sys.stdin.isatty():
            _ask(sandbox_ids, [text for text in sandbox_ids if _in_use(manager, text)])
        done: list[dict[str, Any]] = []
        failed: list[SandboxerError] = []
        for text in sandbox_ids:
            try:
                with Progress(quiet=as_json) as progress:
                    done.append(manager.document(manager.destroy(text, timeout=seconds, progress=progress)))
            except SandboxerError as error:
                if len(sandbox_ids) == 1:
                    raise
                failed.append(error)
        if failed:
            raise _partly(done, failed)
        if as_json:
            emit(done[0] if len(sandbox_ids) == 1 else {"sandboxes": done})
            return
        for document in done:
            say(f"{document['id']} destroyed")


def _in_use(manager: SandboxManager, text: str) -> bool:
    try:
        return manager.in_use(text)
    except SandboxerError:
        return False  # destroying it says what is wrong, and the others go all the same


def _ask(all_ids: list[str], used: list[str]) -> None:
    if used and not typer.confirm(f"{', '.join(used)} in use right now. Destroy anyway?", err=True):
        again = f"sandboxer destroy --force {' '.join(all_ids)}"
        raise Conflict("not destroyed", hint=f"run `{again}` to skip the question")


def _partly(done: list[dict[str, Any]], failed: list[SandboxerError]) -> SandboxerError:
    if not done and len({error.code for error in failed}) == 1:
        return failed[0]
    return Partial(
        f"{len(done)} destroyed, {len(failed)} not: {failed[0].message}",
        hint=failed[0].hint,
        details={
            "destroyed": [document["id"] for document in done],
            "remaining": [error.document() for error in failed],
        },
    )


def recreate(
    sandbox_id: SandboxId,
    actor: Annotated[str | None, typer.Option(metavar="T:NAME", help="Who asks; default: who asked before.")] = None,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Destroy a sandbox and establish a new one, with a new id, from the same request."""
    as_json = wants_json(json)
    seconds = None if timeout is None else parse_duration(timeout, what="--timeout")
    with installation() as here:
        with Progress(quiet=as_json) as progress:
            record = here.manager.recreate(sandbox_id, actor=actor, timeout=seconds, progress=progress)
        show_sandbox(here.manager.document(record), as_json=as_json)


def extend_ttl(
    sandbox_id: SandboxId,
    duration: Annotated[str, typer.Option(metavar="D", help="How much longer, such as 2h.")],
    json: Json = False,
) -> None:
    """Let a sandbox live longer."""
    with installation() as here:
        record = here.manager.extend_ttl(sandbox_id, parse_duration(duration, what="--duration"))
        _show_expiry(here.manager, record, as_json=wants_json(json))


def set_ttl(
    sandbox_id: SandboxId,
    ttl: Annotated[str, typer.Option(metavar="D", help="How long from now on, such as 20m.")],
    json: Json = False,
) -> None:
    """Let a sandbox end that long from now, sooner or later than agreed so far."""
    with installation() as here:
        record = here.manager.set_ttl(sandbox_id, parse_duration(ttl, what="--ttl"))
        _show_expiry(here.manager, record, as_json=wants_json(json))


def _show_expiry(manager: SandboxManager, record: Sandbox, *, as_json: bool) -> None:
    if as_json:
        emit(manager.document(record))
        return
    say(f"{record.id} expires in {remaining(record.expires_at)}, at {brief(rfc3339(record.expires_at) or '')}")


def stop(sandbox_id: SandboxId, timeout: Timeout = None, json: Json = False) -> None:
    """Keep a sandbox without running it, also while it is in use: at a provider it costs less then, or nothing."""
    _stop_or_start("stop", sandbox_id, timeout, json)


def start(sandbox_id: SandboxId, timeout: Timeout = None, json: Json = False) -> None:
    """Run a sandbox again that was stopped, whoever did that; one that runs is left as it is."""
    _stop_or_start("start", sandbox_id, timeout, json)


def _stop_or_start(verb: Literal["stop", "start"], sandbox_id: str, timeout: str | None, json: bool) -> None:
    as_json = wants_json(json)
    seconds = None if timeout is None else parse_duration(timeout, what="--timeout")
    with installation() as here:
        change, reached = {"stop": (here.manager.stop, "stopped"), "start": (here.manager.start, "ready")}[verb]
        with Progress(quiet=as_json) as progress:
            record = change(sandbox_id, timeout=seconds, progress=progress)
        if as_json:
            emit(here.manager.document(record))
            return
        say(f"{record.id} is {reached}; it expires in {remaining(record.expires_at)}")


def _row(document: dict[str, Any], record: Sandbox) -> list[str]:
    expires = remaining(record.expires_at) if record.state in LIVE else "-"
    return [
        document["id"],
        document["name"] or "-",
        document["profile"],
        document["placement"]["host"] or document["extension"],
        document["state"],
        expires,
    ]


def _backend(document: dict[str, Any]) -> str:
    host = document["placement"]["host"]
    return str(document["extension"]) if host is None else f"{document['extension']} on {host}"


def _isolation(isolation: dict[str, Any]) -> str:
    calls = {"filtered": ", system calls filtered", "unfiltered": ", system calls not filtered"}
    return f"{isolation['class']}, network {isolation['network']}{calls.get(isolation['syscalls'], '')}"


def show_sandbox(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(document)
        return
    reach = document["reachability"] or {}
    isolation = document["isolation"] or {}
    facts(
        [
            ("id", document["id"]),
            ("name", document["name"]),
            ("profile", f"{document['profile']} {document['profile_version']}"),
            ("backend", _backend(document)),
            ("state", document["state"]),
            ("last seen", _last_seen(document["last_seen"])),
            ("expires", document["expires_at"] or "never"),
            ("isolation", _isolation(isolation) if isolation else None),
            ("directory", reach.get("remote_dir")),
            ("ssh" if reach.get("kind") == "ssh" else "enter", reach.get("command")),
            ("cost", _cost(document["cost"])),
            *(("passed over", text) for text in _passed_over(document["route"]["decisions"])),
            *(("service", f"{service['name']}  {service['url']}") for service in reach.get("services", ())),
            ("error", (document["error"] or {}).get("message")),
        ]
    )
    for text in isolation.get("notes", ()):
        say(paint(f"  note: {wrapped(text, indent=8)}", "2"))
    if document["report"] is not None:
        from sandboxer.cli.host_report import show_report

        show_report(document["report"])
    if document["state"] == "stopped":
        note(paint(f"try: sandboxer start {document['id']}", "2", sys.stderr))
    if document["state"] in ("ready", "active"):
        note(paint(f"try: sandboxer exec {document['id']} -- uname -a", "2", sys.stderr))


def _last_seen(seen: dict[str, Any] | None) -> str | None:
    if seen is None:
        return None
    return f"{seen['detail']} at {seen['at']}, since {seen['since']}"


def _cost(cost: dict[str, Any]) -> str | None:
    if cost["pricing_model"] == "free":
        return None
    if cost["actual_usd"] is not None:
        return f"{cost['actual_usd']} USD"
    return f"at most {cost['estimated_usd']} USD"


def _passed_over(decisions: list[dict[str, Any]]) -> list[str]:
    """Why it is not where it would rather have been."""
    return [
        f"{one['extension']}{' on ' + one['host'] if one['host'] else ''}: {one['reason']}"
        for one in decisions
        if one["outcome"] in ("failed", "skipped")
    ]


def show_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    """What a create would do."""
    if as_json:
        emit(plan)
        return
    facts(
        [
            ("profile", f"{plan['profile']} {plan['profile_version']}"),
            ("backend", plan["extension"]),
            ("hosts", ", ".join(plan["hosts"]) or None),
            ("ttl", format_duration(plan["ttl_seconds"]) if plan["ttl_seconds"] else "never expires"),
            ("estimate", f"{plan['cost']['estimated_usd']} USD"),
        ]
    )
    show_decisions(plan["route"]["decisions"])
    say("nothing was touched")
