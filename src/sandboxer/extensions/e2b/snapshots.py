"""Take, find and delete snapshots: E2B keeps each as a template of its own, which other sandboxes are made from."""

from __future__ import annotations

from sandboxer.errors import BackendError, SandboxerError
from sandboxer.extensions.base import Context
from sandboxer.extensions.e2b.client import E2BClient, running_sandbox
from sandboxer.extensions.e2b.errors import KEY
from sandboxer.extensions.e2b.handle import E2BHandleData, E2BSnapshotData, check_address
from sandboxer.extensions.provider.account import other_key


def take(control: E2BClient, data: E2BHandleData, name: str, ctx: Context) -> E2BSnapshotData:
    """Take a snapshot of a sandbox; it is found by its name where the answer is lost."""
    try:
        template = control.snapshot(data.id, name)
    except SandboxerError as error:
        if error.outcome != "unknown":
            running_sandbox(control, data, ctx)
            raise
        found = find(control, name)
        if found is None:
            raise
        return found
    return E2BSnapshotData(snapshot=template, name=name, api=control.base, key=control.key)


def find(control: E2BClient, name: str) -> E2BSnapshotData | None:
    """Find a snapshot by its name; None when there is none."""
    template = control.snapshot_named(name)
    if template is None:
        return None
    return E2BSnapshotData(snapshot=template, name=name, api=control.base, key=control.key)


def delete(snapshot: E2BSnapshotData, ctx: Context) -> None:
    """Delete the template that a snapshot is, and see that it is gone: for another account's key it always is."""
    control = E2BClient(ctx)
    check_address(snapshot.api, ctx)
    control.remove_template(snapshot.snapshot)
    if control.snapshot_named(snapshot.name) is not None:
        raise BackendError(f"E2B still shows the snapshot {snapshot.name}", hint="try again", outcome="unknown")
    if control.key != snapshot.key:
        raise other_key(f"the snapshot {snapshot.name}", provider="E2B", variables=KEY)
