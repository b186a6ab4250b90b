"""expire, reconcile, reap-stale: dry runs unless --apply; exit 10 when something remains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from sandboxer.cli.options import Apply, Json, installation
from sandboxer.cli.output import emit, note, say, table, wants_json
from sandboxer.errors import Partial
from sandboxer.manager.sweeps.report import Remaining, Report
from sandboxer.timing import parse_duration


def expire(apply: Apply = False, json: Json = False) -> int:
    """End the sandboxes whose TTL is over, or that were idle for too long. Made for cron: safe to overlap, safe to
    miss, and silent when there is nothing to do."""
    with installation() as here:
        return _tell(here.manager.expire(apply=apply), as_json=wants_json(json), command="expire")


def reconcile(
    apply: Apply = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also when it would remove more than a fifth of what is known.")
    ] = False,
    grace: Annotated[
        str | None, typer.Option(metavar="D", help="Leave resources without a record alone until this old (10m).")
    ] = None,
    json: Json = False,
) -> int:
    """Settle every record and every labelled resource against what the backends really show."""
    with installation() as here:
        if grace is None:
            report = here.manager.reconcile(apply=apply, force=force)
        else:
            seconds = parse_duration(grace, what="--grace")
            report = here.manager.reconcile(apply=apply, force=force, grace=seconds)
        return _tell(report, as_json=wants_json(json), command="reconcile")


def reap_stale(
    apply: Apply = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also more than a fifth of what is known, and what may still be alive.")
    ] = False,
    grace: Annotated[str | None, typer.Option(metavar="D", help="Leave alone what is not this old yet (10m).")] = None,
    install: Annotated[
        str | None, typer.Option(metavar="ID", help="Take what this other installation left, and nothing of ours.")
    ] = None,
    json: Json = False,
) -> int:
    """Look on all hosts and at all providers for what no live record knows, and take it away."""
    seconds = None if grace is None else parse_duration(grace, what="--grace")
    with installation() as here:
        report = here.manager.reap_stale(apply=apply, force=force, grace=seconds, install=install)
        return _tell(report, as_json=wants_json(json), command="reap-stale")


def inspect_stale(
    grace: Annotated[str | None, typer.Option(metavar="D", help="Leave out what is not this old yet (10m).")] = None,
    json: Json = False,
) -> None:
    """What is stale on all hosts and at all providers, and what other installations have there."""
    seconds = None if grace is None else parse_duration(grace, what="--grace")
    with installation() as here:
        report = here.manager.inspect_stale(grace=seconds)
        if wants_json(json):
            emit(msgspec.to_builtins(report))
            return
        table(
            ["SANDBOX", "WHAT", "HOST", "WHY"],
            [[item.sandbox_id or "-", item.kind, item.host or item.extension, item.why] for item in report.stale],
            empty="nothing is stale",
        )
        if report.foreign:
            say()
            say("of other installations:")
            table(
                ["INSTALLATION", "SANDBOX", "HOST", "PROFILE", "EXPIRES"],
                [[f.install, f.sandbox_id, f.host, f.profile or "-", f.expires_at or "-"] for f in report.foreign],
                empty="",
            )
        _tell_remaining(report.remaining)
        if report.stale:
            note("take it away with: sandboxer reap-stale --apply")


def _tell_remaining(remaining: Sequence[Remaining]) -> None:
    if not remaining:
        return
    say()
    say("not settled:")
    table(
        ["SANDBOX", "EXTENSION", "HOST", "WHY"],
        [[r.sandbox_id or "-", r.extension, r.host or "-", r.why] for r in remaining],
        empty="",
    )


def _tell(report: Report, *, as_json: bool, command: str) -> int:
    unfinished = report.applied and bool(report.remaining)
    if as_json:
        document = msgspec.to_builtins(report)
        emit(document)
        return Partial.exit_code if unfinished else 0
    if command == "expire" and report.applied and not report.actions and not report.remaining:
        return 0  # cron sends a mail for every word
    table(
        ["SANDBOX", "ACTION", "HOST", "OUTCOME", "WHY"],
        [[a.sandbox_id or "-", a.action, a.host or a.extension, a.outcome, a.why] for a in report.actions],
        empty="nothing to do",
    )
    _tell_remaining(report.remaining)
    if not report.applied and report.actions:
        note(f"this was a dry run; do it with: sandboxer {command} --apply")
    return Partial.exit_code if unfinished else 0
