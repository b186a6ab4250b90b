"""expire, reconcile: dry runs unless --apply; exit 10 when something remains."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from sandboxer.cli.options import Apply, Json, installation
from sandboxer.cli.output import emit, note, say, table, wants_json
from sandboxer.errors import Partial
from sandboxer.manager.sweep_report import Report
from sandboxer.timing import parse_duration


def expire(apply: Apply = False, json: Json = False) -> int:
    """End the sandboxes whose TTL is over. Made for cron: safe to overlap, safe to miss."""
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


def _tell(report: Report, *, as_json: bool, command: str) -> int:
    unfinished = report.applied and bool(report.remaining)
    if as_json:
        document = msgspec.to_builtins(report)
        emit(document)
        return Partial.exit_code if unfinished else 0
    table(
        ["SANDBOX", "ACTION", "HOST", "OUTCOME", "WHY"],
        [[a.sandbox_id or "-", a.action, a.host or a.extension, a.outcome, a.why] for a in report.actions],
        empty="nothing to do",
    )
    if report.remaining:
        say()
        say("not settled:")
        table(
            ["SANDBOX", "EXTENSION", "HOST", "WHY"],
            [[r.sandbox_id or "-", r.extension, r.host or "-", r.why] for r in report.remaining],
            empty="",
        )
    if not report.applied and report.actions:
        note(f"this was a dry run; do it with: sandboxer {command} --apply")
    return Partial.exit_code if unfinished else 0
