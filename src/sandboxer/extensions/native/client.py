"""Running the scripts on a host and understanding their answers."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from sandboxer import bounded, timing
from sandboxer.errors import BackendError, Conflict, Denied, NotConfigured, Unavailable
from sandboxer.extensions.base import Context, Found, Presence, Spec
from sandboxer.extensions.base import from_handle as read_handle
from sandboxer.extensions.native import bubblewrap, guard, scripts
from sandboxer.extensions.native.handle import SandboxPaths
from sandboxer.extensions.native.host_facts import HostFacts, parse, require, why_not_started
from sandboxer.extensions.native.plan import NativeHandleData, StartPlan
from sandboxer.hosts.base import Command, Host
from sandboxer.hosts.process.capture import capture_output
from sandboxer.models import Handle
from sandboxer.names import LABEL_EXPIRES, LABEL_INSTALL, sandbox_id_of

HANDLE_VERSION: Final = 2
_UNGUARDED: Final = 1
"""The version whose sandboxes have no guard: they can be looked at and removed, and not entered."""
CREATED: Final = "created_at"
TAG: Final = "SANDBOXER_HOLDER"
"""The variable that a sandbox's processes on the host carry; see Place.tag."""
_SAID: Final = 65536
_FRESH: Final = 60.0
"""How long a host's facts hold, in seconds."""
_known: WeakKeyDictionary[Host, tuple[float, HostFacts]] = WeakKeyDictionary()


def to_handle(remembered: NativeHandleData) -> Handle:
    """What the core stores."""
    return Handle(version=HANDLE_VERSION, data=msgspec.to_builtins(remembered))


def from_handle(handle: Handle) -> NativeHandleData:
    """What we stored. Raises Conflict for a handle of a later version."""
    if handle.version == _UNGUARDED:
        known = {name: value for name, value in handle.data.items() if name in NativeHandleData.__struct_fields__}
        handle = Handle(version=HANDLE_VERSION, data=known)
    return read_handle(handle, NativeHandleData, version=HANDLE_VERSION)


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


def claim(place: SandboxPaths, spec: Spec, ctx: Context) -> HostFacts:
    """Make the directory with its marker, and learn what the host is."""
    text = marker_text(spec, timing.now())
    if ctx.host.address().kind == "local":
        facts = _known_facts(ctx)
        # by ourselves, not by a process that could go on after we are killed: then `find` sees it, or it never comes
        if ctx.host.read_file(place.marker, ctx.deadline) is not None:
            raise _taken(place)
        try:
            ctx.host.write_file(place.marker, text.encode() + b"\n", ctx.deadline)
        except (BackendError, Denied) as error:
            raise _not_made(place, error.message) from error
        return facts
    done = ctx.host.run(scripts.claim(place, text), ctx.deadline, env={TAG: place.tag})
    facts = parse(done.text)
    require(facts)
    if facts.exists:
        raise _taken(place)
    if done.code != 0 or not facts.claimed:
        raise _not_made(place, done.complaint)
    return facts


def _known_facts(ctx: Context) -> HostFacts:
    """This machine's facts, asked for once a minute: 4 ms of a creation's 25."""
    known = _known.get(ctx.host)
    if known is None or time.monotonic() - known[0] > _FRESH:
        known = _known[ctx.host] = (time.monotonic(), read_host_facts(ctx))
    return known[1]


def _not_made(place: SandboxPaths, why: str) -> BackendError:
    return BackendError(
        f"the directory {place.directory} could not be made: {why}",
        hint="check `work_dir` of the host in config.yaml: its rights, and free space (df -h)",
    )


def _taken(place: SandboxPaths) -> Conflict:
    return Conflict(f"{place.directory} is there already", hint="run `sandboxer reconcile` to see what it belongs to")


def start(plan: StartPlan, facts: HostFacts, ctx: Context) -> None:
    """Write the start file and run it; returns when the sandbox is up."""
    place = plan.remembered.place
    # clean: what the holder is started with can be read from inside, in the environment of its first process
    # tagged from the start: a shell that outlives a killed client is found and ended like the rest
    command = Command(argv=scripts.start(place), clean_env=True, env={TAG: place.tag}, track=place.track)
    packed = _packed(
        {
            "start": (plan.start.encode("utf-8", "surrogateescape"), 0o600),
            "run/handle.json": (msgspec.json.encode(plan.remembered) + b"\n", 0o600),
            guard.FILE: (plan.guard, 0o700),
        }
    )
    done = capture_output(ctx.host.stream, command, ctx.deadline, stdin=packed, limit=_SAID)
    if done.code != 0:
        raise why_not_started(done.complaint, facts)


def _packed(members: Mapping[str, tuple[bytes, int]]) -> bytes:
    """An archive of the files; the folder run/ comes first, as start.sh would make it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("run")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for name, (data, mode) in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), mode
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def look(place: SandboxPaths, ctx: Context) -> tuple[Presence, dict[str, Any], NativeHandleData | None]:
    """Its presence, its marker ({} when there is none) and what was remembered of it on the host.

    Raises the host's errors, and BackendError when it cannot know."""
    done = ctx.host.run(scripts.look(place), ctx.deadline)
    lines = done.text.split("\n") if done.code == 0 else []
    presence = lines[0] if lines else ""
    marker = lines[1] if len(lines) > 1 else ""
    if presence in ("running", "stopped", "absent"):
        known: Presence = "running" if presence == "running" else "stopped" if presence == "stopped" else "absent"
        return known, _marker(marker), _remembered(lines[2] if len(lines) > 2 else "", place)
    raise BackendError(
        f"whether {place.directory} exists cannot be seen: {done.complaint}",
        hint=f"check the rights of {place.work_dir}",
    )


def inventory(work_dir: str, ctx: Context) -> list[Found]:
    """All sandboxes of `ctx.install` below the work directory; raises when the look was not complete."""
    done = ctx.host.run(scripts.inventory(work_dir, ctx.install), ctx.deadline)
    if done.code != 0:
        raise BackendError(f"{work_dir} cannot be listed: {done.complaint}", hint=f"check the rights of {work_dir}")
    # a script that ended normally has told everything: it checks that it may read the directory before it starts
    records, tags = _records(done.stdout.decode("utf-8", "replace"))
    found: dict[str, Found] = {}
    for name, text, handle in records:
        sandbox_id = sandbox_id_of(name)
        if sandbox_id is None or not text:
            # nothing proves that it is ours. A creation or a removal that was killed between two steps can leave one:
            # its record is there (it is written before, and dropped after), and `find` sees the directory
            continue
        marker = _marker(text)
        if not marker:
            raise BackendError(
                f"the marker file of {work_dir}/{name} is damaged",
                hint="look at it; if the directory is nobody's, remove it by hand",
            )
        if marker.get(LABEL_INSTALL) != ctx.install:
            continue
        place = SandboxPaths(work_dir, sandbox_id, ctx.install)
        remembered = _remembered(handle, place) or _minimal(place)
        found[sandbox_id] = Found(
            sandbox_id=sandbox_id,
            handle=to_handle(remembered),
            labels={key: str(value) for key, value in marker.items() if key.startswith("sandboxer.")},
            created_at=_number(marker.get(CREATED)),
            expires_at=_number(marker.get(LABEL_EXPIRES)),
            detail=f"{work_dir}/{name}",
        )
    for tag in tags:
        sandbox_id = sandbox_id_of(tag.partition(".")[0])
        if sandbox_id is not None and sandbox_id not in found:
            place = SandboxPaths(work_dir, sandbox_id, ctx.install)
            found[sandbox_id] = Found(
                sandbox_id=sandbox_id, handle=to_handle(_minimal(place)), detail="processes without a directory"
            )
    return list(found.values())


def running(place: SandboxPaths, ctx: Context) -> Presence:
    """The presence of a sandbox that has just been started."""
    if ctx.host.address().kind == "local" and _runs_here(place, ctx):
        return "running"
    return look(place, ctx)[0]


def _runs_here(place: SandboxPaths, ctx: Context) -> bool:
    """What `recorded` of host/common.sh tells, on this machine without starting a process."""

    def read(path: str) -> str:
        return (ctx.host.read_file(path, ctx.deadline, limit=65536) or b"").decode("utf-8", "replace")

    boot = read("/proc/sys/kernel/random/boot_id").strip()
    alive = set()
    for line in read(place.path("run/holder")).splitlines():
        what, _, rest = line.partition(" ")
        pid, _, rest = rest.partition(" ")
        fields = read(f"/proc/{pid}/stat").rpartition(") ")[2].split() if pid.isdigit() else []
        if len(fields) > 19 and fields[0] not in ("Z", "X") and rest == f"{fields[19]} {boot}":
            alive.add(what)
    return {"monitor", "child", "up"} <= alive


def find(place: SandboxPaths, ctx: Context) -> NativeHandleData | None:
    """Whatever there is of one sandbox, or None when it is certain that there is nothing of ours."""
    presence, marker, remembered = look(place, ctx)
    if presence == "absent" or marker.get(LABEL_INSTALL, place.install) != place.install:
        return None
    return remembered or _minimal(place)


def remove(place: SandboxPaths, ctx: Context) -> None:
    """Free everything. Raises Conflict for a directory of another installation, BackendError when something is left."""
    ended_sessions: Exception | None = None
    try:
        ctx.host.end_tracked(place.track, ctx.deadline)
    except (BackendError, NotConfigured) as error:
        ended_sessions = error  # the steps are independent: what the sessions started is ended below as well
    done = ctx.host.run(scripts.end(place), ctx.deadline)
    lines = done.text.splitlines()
    if any(line.startswith("foreign ") for line in lines):
        raise Conflict(
            f"{place.directory} belongs to another installation of sandboxer",
            hint=f"look at {place.marker}; remove it with the installation that made it",
        )
    if done.code != 0 or lines:
        mounted = next((line.removeprefix("left mount ") for line in lines if line.startswith("left mount ")), None)
        said = "; ".join(lines) + (f"\n{done.complaint}" if done.stderr or not lines else "")
        raise BackendError(
            f"not everything of {place.name} is gone: {said.strip()}",
            hint=f"{f'umount {mounted}' if mounted else f'look at {place.directory}'}, then destroy it again",
            retryable=True,
            outcome="unknown",
        )
    if ended_sessions is not None:
        raise ended_sessions


def renew(place: SandboxPaths, expires_at: float | None, ctx: Context) -> None:
    """Write the new expiry into the marker."""
    text = ctx.host.read_file(place.marker, ctx.deadline, limit=65536)
    if text is None:
        raise Unavailable(f"{place.marker} is not there", hint="run `sandboxer reconcile`", retryable=False)
    marker = _marker(text.decode("utf-8", "replace"))
    marker.pop(LABEL_EXPIRES, None)
    if expires_at is not None:
        marker[LABEL_EXPIRES] = str(int(expires_at))
    ctx.host.write_file(place.marker, json.dumps(marker, separators=(",", ":")).encode() + b"\n", ctx.deadline)


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


def _minimal(place: SandboxPaths) -> NativeHandleData:
    return NativeHandleData(work_dir=place.work_dir, id=place.sandbox_id, install=place.install)


def _marker(text: str) -> dict[str, Any]:
    """The marker's fields; {} when it is missing or damaged (a creation that was killed half-way)."""
    try:
        marker = bounded.decode(text, bounds=bounded.SMALL)
    except msgspec.DecodeError:
        return {}
    return marker if isinstance(marker, dict) else {}


def _remembered(text: str, place: SandboxPaths) -> NativeHandleData | None:
    """The handle that was saved beside the sandbox; it must be about this place to count."""
    if not text:
        return None
    try:
        data = bounded.decode_as(dict[str, Any], text, bounds=bounded.SMALL)
        remembered = from_handle(Handle(version=_UNGUARDED, data=data))
    except (msgspec.DecodeError, Conflict):
        return None  # half-written: a start that was killed
    return remembered if remembered.place == place else None


def _records(text: str) -> tuple[list[tuple[str, str, str]], list[str]]:
    lines = text.split("\n")[:-1]
    tags = [line.partition("=")[2] for line in lines if line.startswith("SANDBOXER_HOLDER=")]
    rest = [line for line in lines if not line.startswith("SANDBOXER_HOLDER=")]
    if len(rest) % 3:
        raise BackendError("the listing of sandboxes makes no sense", hint="run `sandboxer doctor`")
    return [(rest[i], rest[i + 1], rest[i + 2]) for i in range(0, len(rest), 3)], tags


def _number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, str | int | float) and value != "" else None
    except ValueError:
        return None
