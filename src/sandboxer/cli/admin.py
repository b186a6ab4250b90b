"""inspect host, doctor, events, serve: for whoever runs sandboxer."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from sandboxer.cli.options import Json, installation
from sandboxer.cli.output import emit, facts, note, paint, say, table, wants_json
from sandboxer.config.settings import LOCAL
from sandboxer.errors import NotConfigured, StoreCorrupt
from sandboxer.timing import Deadline


def inspect_host(
    host: Annotated[
        str | None, typer.Argument(metavar="H", help="A placement host; default: where a create would go.")
    ] = None,
    json: Json = False,
) -> None:
    """What a placement host says of itself (processors, memory, disk, engines), and what our sandboxes use of it."""
    with installation() as here:
        usual = here.environment.get("SANDBOXER_HOST") or here.settings.defaults.host or LOCAL
        document = here.manager.inspect_host(usual if host is None else host)
        if wants_json(json):
            emit(document)
            return
        from sandboxer.cli.host_report import host_facts, networks, programs, show_sandboxes

        tools = [tool for tool in (document.get("tools") or {}).values() if tool]
        rest = [("tools", programs(tools)), ("networks", networks(document.get("network_pools") or ()))]
        facts([("host", document.get("host")), *host_facts(document), *rest])
        say()
        show_sandboxes(document.get("sandboxes") or ())


def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Set an unreadable store aside and bring back what the backends show.")
    ] = False,
    json: Json = False,
) -> int:
    """What is there, here and on each host, what is missing, and what to type to mend it."""
    from sandboxer.doctor import examine, mend

    findings = mend() if repair else examine()
    bad = [finding for finding in findings if finding.level == "error"]
    status = 0
    if bad:
        unreadable = any(finding.subject in ("store", "credits", "tokens") for finding in bad)
        status = StoreCorrupt.exit_code if unreadable else NotConfigured.exit_code
    if wants_json(json):
        emit({"findings": [msgspec.to_builtins(finding) for finding in findings], "ok": not bad})
        return status
    signs = {"ok": paint("✓", "32"), "warning": paint("!", "33"), "error": paint("✗", "31")}
    for finding in findings:
        say(f"{signs[finding.level]} {finding.subject}: {finding.text}")
        if finding.hint and finding.level != "ok":
            say(f"    {paint(finding.hint, '34')}")
    return status


def events_list(
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100000, help="The newest N.")] = 100,
    json: Json = False,
) -> None:
    """The events that are still kept, oldest first."""
    with installation() as here:
        found = here.manager.events(limit=limit)
        if wants_json(json):
            emit({"events": [msgspec.to_builtins(event) for event in found]})
            return
        table(
            ["TIME", "EVENT", "FOR", "STATUS", "SUMMARY"],
            [[event.occurred_at, event.event_type, event.sink, event.status, event.summary] for event in found],
            empty="no events",
        )


def events_flush(
    parked: Annotated[
        bool, typer.Option("--parked", help="Also what was refused for good, after a token or address was mended.")
    ] = False,
    json: Json = False,
) -> int:
    """Send what waits to the State Hub and to fin-hub, now."""
    with installation() as here:
        report = here.relays().flush(Deadline(60), parked=parked)
        if wants_json(json):
            emit(msgspec.to_builtins(report))
        else:
            for sink in report.sinks:
                name = f"{sink.sink}: " if len(report.sinks) > 1 else ""
                say(f"{name}{sink.sent} sent, {sink.parked} refused for good, {sink.pending} waiting")
            for text in [*report.warnings, *([report.error] if report.error else [])]:
                note(text)
        return 8 if report.pending else 0


def serve(
    host: Annotated[str | None, typer.Option(metavar="H", help="The address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(metavar="P", min=0, max=65535, help="The port (8377).")] = None,
    json: Json = False,
) -> None:
    """Serve the HTTP API. With --json, stdout tells where it listens, once it does."""
    from sandboxer.api.server import serve as run
    from sandboxer.bootstrap import install
    from sandboxer.cli.signals import Signalled

    here = install(relay_in_background=False)
    try:
        run(
            here,
            host or here.settings.api.host,
            here.settings.api.port if port is None else port,
            listening=emit if wants_json(json) else None,
        )
    except Signalled:
        return  # the usual end of a server
