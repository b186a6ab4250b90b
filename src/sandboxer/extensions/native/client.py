"""Running the scripts on a host and understanding their answers."""

from __future__ import annotations

import io
import json
import posixpath
import tarfile
import time
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from sandboxer import document_bounds, timing
from sandboxer.errors import BackendError, Denied, NotConfigured
from sandboxer.extensions.base import Context, Spec
from sandboxer.extensions.native import bubblewrap, guard, scripts
from sandboxer.extensions.native.errors import foreign, not_made, taken, why_not_started
from sandboxer.extensions.native.handle import SandboxPaths
from sandboxer.extensions.native.host_facts import HostFacts, parse, require
from sandboxer.extensions.native.plan import StartPlan
from sandboxer.hosts.base import Command, Host
from sandboxer.hosts.process.capture import capture_output
from sandboxer.names import LABEL_EXPIRES

CREATED: Final = "created_at"
TAG: Final = "SANDBOXER_HOLDER"
"""The variable that a sandbox's processes on the host carry; see Place.tag."""
_SAID: Final = 65536
_FRESH: Final = 60.0
"""How long a host's facts hold, in seconds."""
_known: WeakKeyDictionary[Host, tuple[float, HostFacts]] = WeakKeyDictionary()


def work_dir(ctx: Context) -> str:
    """Where sandboxes are on the host."""
    return posixpath.normpath(ctx.host.work_dir(ctx.deadline))


def marker_text(spec: Spec, created_at: float) -> str:
    """The marker file: the labels, and when it was made. One line, which end.sh and list.sh read."""
    return json.dumps({**spec.labels, CREATED: created_at}, separators=(",", ":"))


def read_host_facts(ctx: Context) -> HostFacts:
    """The facts of the host; raises NotConfigured when something is missing."""
    done = ctx.host.run(scripts.facts(), ctx.deadline)
    if done.code != 0:
        raise BackendError(f"the host could not be looked at: {done.complaint}", hint="run `sandboxer doctor`")
    facts = parse(done.text)
    require(facts)
    return facts


def claim(paths: SandboxPaths, spec: Spec, ctx: Context) -> HostFacts:
    """Make the directory with its marker, and learn what the host is."""
    text = marker_text(spec, timing.now())
    if ctx.host.address().kind == "local":
        facts = _known_facts(ctx)
        # by ourselves, not by a process that could go on after we are killed: then `find` sees it, or it never comes
        if ctx.host.read_file(paths.marker, ctx.deadline) is not None:
            raise taken(paths)
        try:
            ctx.host.write_file(paths.marker, text.encode() + b"\n", ctx.deadline)
        except (BackendError, Denied) as error:
            raise not_made(paths, error.message) from error
        return facts
    done = ctx.host.run(scripts.claim(paths, text), ctx.deadline, env={TAG: paths.tag})
    facts = parse(done.text)
    require(facts)
    if facts.exists:
        raise taken(paths)
    if done.code != 0 or not facts.claimed:
        raise not_made(paths, done.complaint)
    return facts


def _known_facts(ctx: Context) -> HostFacts:
    """This machine's facts, asked for once a minute: 4 ms of a creation's 25."""
    known = _known.get(ctx.host)
    if known is None or time.monotonic() - known[0] > _FRESH:
        known = _known[ctx.host] = (time.monotonic(), read_host_facts(ctx))
    return known[1]


def start(plan: StartPlan, facts: HostFacts, ctx: Context) -> None:
    """Write the start file and run it; returns when the sandbox is up."""
    paths = plan.sandbox.paths
    # clean: what the holder is started with can be read from inside, in the environment of its first process
    # tagged from the start: a shell that outlives a killed client is found and ended like the rest
    command = Command(
        argv=scripts.start(paths, owners=facts.root), clean_env=True, env={TAG: paths.tag}, track=paths.track
    )
    packed = _packed(
        plan.folders,
        {
            "start": (plan.start.encode("utf-8", "surrogateescape"), 0o600),
            "run/handle.json": (msgspec.json.encode(plan.sandbox) + b"\n", 0o600),
            guard.FILE: (plan.guard, 0o700),
        },
    )
    done = capture_output(ctx.host.stream, command, ctx.deadline, stdin=packed, limit=_SAID)
    if done.code != 0:
        raise why_not_started(done.complaint, facts)


def _packed(folders: Mapping[str, tuple[int, int, int]], members: Mapping[str, tuple[bytes, int]]) -> bytes:
    """An archive of the folders (mode, uid, gid) and then the files (content, mode)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:  # whose uids may be large
        for name, (mode, uid, gid) in folders.items():
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, mode, uid, gid
            tar.addfile(folder)
        for name, (data, mode) in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def remove(paths: SandboxPaths, ctx: Context) -> None:
    """Free everything. Raises Conflict for a directory of another installation, BackendError when something is left."""
    ended_sessions: Exception | None = None
    try:
        ctx.host.end_tracked(paths.track, ctx.deadline)
    except (BackendError, NotConfigured) as error:
        ended_sessions = error  # the steps are independent: what the sessions started is ended below as well
    done = ctx.host.run(scripts.end(paths), ctx.deadline)
    lines = done.text.splitlines()
    if any(line.startswith("foreign ") for line in lines):
        raise foreign(paths)
    if done.code != 0 or lines:
        mounted = next((line.removeprefix("left mount ") for line in lines if line.startswith("left mount ")), None)
        said = "; ".join(lines) + (f"\n{done.complaint}" if done.stderr or not lines else "")
        raise BackendError(
            f"not everything of {paths.name} is gone: {said.strip()}",
            hint=f"{f'umount {mounted}' if mounted else f'look at {paths.directory}'}, then destroy it again",
            retryable=True,
            outcome="unknown",
        )
    if ended_sessions is not None:
        raise ended_sessions


def renew(paths: SandboxPaths, expires_at: float | None, ctx: Context) -> None:
    """Write the new expiry into the marker. Raises BackendError where there is none, and for one that cannot be read:
    written anew it would say no more whose the sandbox is."""
    text = ctx.host.read_file(paths.marker, ctx.deadline, limit=65536)
    marker = {} if text is None else decode_marker(text.decode("utf-8", "replace"))
    if not marker:
        what = "is gone" if text is None else "is broken"
        raise BackendError(f"{paths.marker} {what}", hint="run `sandboxer reconcile --apply`, or destroy it")
    marker.pop(LABEL_EXPIRES, None)
    if expires_at is not None:
        marker[LABEL_EXPIRES] = str(int(expires_at))
    ctx.host.write_file(paths.marker, json.dumps(marker, separators=(",", ":")).encode() + b"\n", ctx.deadline)


def probe(ctx: Context) -> None:
    """Make one sandbox for nothing, without a directory. Raises NotConfigured with what to do."""
    facts = read_host_facts(ctx)
    bwrap = facts.tools.get("bwrap")
    if bwrap is None:
        package = bubblewrap.package_for(facts.machine, ctx)
        if ctx.host.address().kind != "local":
            return  # it will be brought along; that cannot be tried without leaving something there
        bwrap = str(package[0])
    done = ctx.host.run(scripts.probe(facts, bwrap), ctx.deadline)
    if done.code != 0:
        raise why_not_started(done.complaint, facts)


def decode_marker(text: str) -> dict[str, Any]:
    """The marker's fields; {} when it is missing or damaged (a creation that was killed half-way)."""
    try:
        marker = document_bounds.decode(text, bounds=document_bounds.SMALL)
    except msgspec.DecodeError:
        return {}
    return marker if isinstance(marker, dict) else {}
