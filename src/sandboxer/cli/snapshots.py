"""snapshot, restore, snapshots list, get, delete, verify."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from sandboxer.cli.lifecycle import show_sandbox
from sandboxer.cli.options import Host, Json, SandboxId, Timeout, installation
from sandboxer.cli.output import emit, facts, note, say, table, wants_json
from sandboxer.cli.progress import Progress
from sandboxer.config.paths import working_directory
from sandboxer.errors import StoreCorrupt
from sandboxer.manager.snapshots.restore import RestoreRequest
from sandboxer.models import Snapshot
from sandboxer.names import parse_pairs
from sandboxer.timing import brief, parse_duration, rfc3339

SnapshotId = Annotated[str, typer.Argument(metavar="SNAP", help="The id of a snapshot, a unique prefix, or its name.")]


def snapshot(
    sandbox_id: SandboxId,
    name: Annotated[str | None, typer.Option(metavar="LABEL", help="A name for it.")] = None,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Keep a sandbox's files as they are now, to make other sandboxes of them."""
    as_json = wants_json(json)
    seconds = None if timeout is None else parse_duration(timeout, what="--timeout")
    with installation() as here:
        with Progress(quiet=as_json) as progress:
            taken = here.manager.snapshot(sandbox_id, name=name, timeout=seconds, progress=progress)
        _show(here.manager.snapshot_document(taken), as_json=as_json)
        if not as_json:
            note(f"try: sandboxer restore {taken.id}")


def restore(
    snapshot_id: SnapshotId,
    ttl: Annotated[str | None, typer.Option(metavar="D", help="Its lifetime, such as 30m or 2h.")] = None,
    host: Host = None,
    name: Annotated[str | None, typer.Option(metavar="N", help="A name to use instead of the id.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A label, in place of those of the first; repeatable.")
    ] = None,
    input_: Annotated[
        list[str] | None, typer.Option("--input", metavar="K=V", help="Another input; secret ones are not kept.")
    ] = None,
    actor: Annotated[str | None, typer.Option(metavar="T:NAME", help="Who asks; default: whose it was.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="K", help="Asking again with the same key gives the same sandbox.")
    ] = None,
    timeout: Timeout = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Answer at once; the work goes on by itself.")] = False,
    keep_failed: Annotated[bool, typer.Option("--keep-failed", help="Keep what a failed restore has made.")] = False,
    json: Json = False,
) -> None:
    """Make a new sandbox of a snapshot, on another host too."""
    as_json = wants_json(json)
    asked = RestoreRequest(
        host=host,
        ttl=None if ttl is None else parse_duration(ttl, what="--ttl"),
        name=name,
        labels=None if label is None else parse_pairs(label, what="label"),
        inputs=dict(parse_pairs(input_ or [], what="input")),
        timeout=None if timeout is None else parse_duration(timeout, what="--timeout"),
        keep_failed=keep_failed,
    )
    with installation() as here:
        manager = here.manager
        request = manager.restore_request(snapshot_id, asked)
        plan = manager.plan(
            request.request,
            actor=actor or request.actor,
            idempotency_key=idempotency_key,
            base=working_directory(),
        )
        if no_wait:
            show_sandbox(manager.document(here.create_detached(plan)), as_json=as_json)
            return
        with Progress(quiet=as_json) as progress:
            record = manager.create(plan, progress=progress)
        show_sandbox(manager.document(record), as_json=as_json)


def snapshots_list(
    sandbox: Annotated[str | None, typer.Option(metavar="ID", help="Only of this sandbox, by its whole id.")] = None,
    json: Json = False,
) -> None:
    """The snapshots that are there, oldest first."""
    with installation() as here:
        found = here.manager.snapshots(sandbox=sandbox)
        if wants_json(json):
            emit({"snapshots": [here.manager.snapshot_document(one) for one in found]})
            return
        table(
            ["ID", "NAME", "SANDBOX", "PROFILE", "STATE", "SIZE", "ADDED", "TAKEN"],
            [_row(one) for one in found],
            empty="no snapshots; `sandboxer snapshot ID` takes one",
        )


def snapshots_get(snapshot_id: SnapshotId, json: Json = False) -> None:
    """Show one snapshot."""
    with installation() as here:
        manager = here.manager
        _show(manager.snapshot_document(manager.get_snapshot(snapshot_id)), as_json=wants_json(json))


def snapshots_delete(snapshot_id: SnapshotId, timeout: Timeout = None, json: Json = False) -> None:
    """Delete a snapshot; one that is being restored is a conflict."""
    as_json = wants_json(json)
    seconds = None if timeout is None else parse_duration(timeout, what="--timeout")
    with installation() as here:
        with Progress(quiet=as_json) as progress:
            gone = here.manager.delete_snapshot(snapshot_id, timeout=seconds, progress=progress)
        if as_json:
            emit(here.manager.snapshot_document(gone))
            return
        say(f"{gone.id} deleted")


def snapshots_verify(snapshot_id: SnapshotId, json: Json = False) -> int:
    """Read all of a snapshot, and prove that it is what was kept; exit 13 where it is not."""
    with installation() as here:
        report = here.manager.verify_snapshot(snapshot_id)
        if wants_json(json):
            emit(msgspec.to_builtins(report))
        elif report.ok:
            say(f"{report.id} is whole")
        else:
            for one in report.damaged:
                say(f"{report.id}: {one.stream}: {one.chunks} chunks cannot be read: {one.said}")
            note("the next snapshot with the same contents stores them anew, which mends this one too")
        return 0 if report.ok else StoreCorrupt.exit_code


def _row(one: Snapshot) -> list[str]:
    taken = brief(rfc3339(one.created_at) or "")
    return [
        one.id, one.name or "-", one.sandbox_id, one.profile, one.state, _size(one.size_bytes),
        _size(one.stored_bytes), taken,
    ]  # fmt: skip


def _show(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(document)
        return
    facts(
        [
            ("id", document["id"]),
            ("name", document["name"]),
            ("sandbox", document["sandbox_id"]),
            ("profile", document["profile"]),
            ("backend", f"{document['extension']}{' on ' + document['host'] if document['host'] else ''}"),
            ("state", None if document["state"] == "kept" else document["state"]),
            ("taken", document["created_at"]),
            ("size", _size(document["size_bytes"])),
            ("added", _size(document["stored_bytes"])),
            ("of one moment", "yes" if document["consistent"] else "not certain"),
            ("contents", ", ".join(document["contents"])),
            *(("note", text) for text in document["notes"]),
        ]
    )


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
