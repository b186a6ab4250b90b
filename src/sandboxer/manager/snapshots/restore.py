"""Restore a snapshot: plan a create of what its sandbox was asked for, on the backend that can read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from sandboxer.errors import Internal, NotFound, Unsupported
from sandboxer.extensions.base import CanSnapshot, Context, SandboxExtension, Spec
from sandboxer.manager.establish.candidates import manifests_of, profile_extensions, refs_of
from sandboxer.manager.services import Progress, Services
from sandboxer.manager.snapshots.facts import snapshot_detail
from sandboxer.manager.snapshots.kept_streams import OpenedSnapshot, opened_snapshot, whole_snapshot
from sandboxer.models import Event, Handle, Profile, Request, Sandbox, Snapshot, Value


class RestoreRequest(Value, frozen=True, kw_only=True):
    """What is asked of a restore besides its snapshot. `inputs` are laid over those of the first sandbox; what is None
    is as it was there. Names are not taken over: the first sandbox may still have its own."""

    host: str | None = None
    ttl: int | None = None
    name: str | None = None
    labels: dict[str, str] | None = None
    inputs: dict[str, Any] = {}
    timeout: int | None = None
    keep_failed: bool = False


class Restore(Value, frozen=True, kw_only=True):
    """What to create to restore a snapshot. `actor`: whose the snapshot is, and so the sandbox, also when somebody asks
    who may for everybody."""

    request: Request
    actor: str


def request_of(services: Services, snapshot: Snapshot, asked: RestoreRequest) -> Request:
    """The request of a sandbox that is made of a snapshot. What was secret was not kept, and is left out. Raises
    NotFound when its profile is gone."""
    profile = _profile(services, snapshot)
    before = snapshot.request
    kept = {
        name: value
        for name, value in before.inputs.items()
        if name not in profile.inputs or not profile.inputs[name].secret
    }
    return Request(
        profile=snapshot.profile,
        inputs={**kept, **asked.inputs},
        host=asked.host or before.host,
        name=asked.name,
        labels=before.labels if asked.labels is None else asked.labels,
        ttl=before.ttl if asked.ttl is None else asked.ttl,
        keep_failed=asked.keep_failed,
        timeout=asked.timeout,
        snapshot=snapshot.id,
    )


def _profile(services: Services, snapshot: Snapshot) -> Profile:
    try:
        return services.profiles.get(snapshot.profile)
    except NotFound as error:
        raise NotFound(
            f"snapshot {snapshot.id} is of a sandbox of {snapshot.profile}, which is not there any more",
            hint="put the profile back; `sandboxer profiles list` shows what there is",
        ) from error


def narrowed(services: Services, snapshot_id: str, request: Request) -> tuple[Profile, Request]:
    """The profile and the request of a restore: the one extension that has the files, without the paths that a create
    would bring: the files are those of the snapshot. Raises NotFound, Conflict, Unsupported."""
    snapshot = whole_snapshot(services, snapshot_id)
    profile = _profile(services, snapshot)
    name = snapshot.extension
    if name not in profile_extensions(profile):
        raise Unsupported(
            f"snapshot {snapshot_id} was taken by {name}, which {profile.id} does not use any more",
            hint=f"put {name} back into the profile",
        )
    if not isinstance(services.extensions.get(name), CanSnapshot):
        raise Unsupported(f"{name} restores no snapshots", hint=f"run `sandboxer extensions show {name}`")
    own = profile.route.options.get(name, {}) if profile.route is not None else {}
    inputs = {key: spec for key, spec in profile.inputs.items() if spec.type != "path"}
    only = msgspec.structs.replace(
        profile,
        extension=name,
        route=None,
        options={**profile.options, **own},
        secrets=refs_of(profile, manifests_of(services, profile), name),
        inputs=inputs,
    )
    paths = profile.inputs.keys() - inputs.keys()
    given = {key: value for key, value in request.inputs.items() if key not in paths}
    return only, msgspec.structs.replace(request, inputs=given)


@contextmanager
def source_of(services: Services, snapshot_id: str | None, progress: Progress) -> Iterator[OpenedSnapshot | None]:
    """The snapshot that a sandbox is made of, held as long as the block runs; None where it is made of none."""
    if snapshot_id is None:
        yield None
        return
    with opened_snapshot(services, snapshot_id, progress) as opened:
        yield opened


def provision(extension: SandboxExtension, spec: Spec, source: OpenedSnapshot | None, context: Context) -> Handle:
    """Make a sandbox, of a snapshot where there is one."""
    if source is None:
        return extension.provision(spec, context)
    handle = source.snapshot.handle
    if not isinstance(extension, CanSnapshot) or handle is None:
        raise Internal(f"snapshot {source.snapshot.id} has nothing to restore")
    for note in source.snapshot.notes:
        context.progress("note", f"snapshot {source.snapshot.id}: {note}")
    return extension.restore_from_snapshot(spec, handle, msgspec.structs.replace(context, kept=source.streams))


def restored_event(services: Services, before: Sandbox, after: Sandbox) -> tuple[Event, ...]:
    """The fact that a snapshot was restored, ahead of the one that its sandbox is ready; nothing for another sandbox.
    The record counts both."""
    if after.snapshot_of is None:
        return ()
    snapshot = services.snapshots.get(after.snapshot_of)
    known: Mapping[str, object] = {} if snapshot is None else snapshot_detail(snapshot)
    detail = {"snapshot_id": after.snapshot_of, **known, "seq": after.seq - 1}
    return (services.event(before, after, "snapshot.restored", detail=detail),)
