"""List what exists on a host, from markers and labels: read back, and never guessed at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import BackendError
from sandboxer.extensions.base import Context, Found
from sandboxer.extensions.compose_ssh import argv, engine, errors
from sandboxer.extensions.compose_ssh.handle import ComposeHandleData, to_handle
from sandboxer.extensions.compose_ssh.options import EXTENSION_ID, ComposeCommand
from sandboxer.names import ID, LABEL_EXPIRES, LABEL_EXTENSION, LABEL_ID, LABEL_INSTALL, sandbox_id_of

LOOK_SECONDS: Final = 60.0
"""The longest that one look at the engine may take; more means that it hangs."""
_TRIES: Final = 4
"""A listing is two steps (names, then details); what ends between them makes the second fail: then all is repeated."""


class ExistingParts(msgspec.Struct, frozen=True, kw_only=True):
    """What exists of one sandbox. `containers` are their states, as `ps` says them: "up 2 minutes", "exited (1)"."""

    things: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    handle_data: ComposeHandleData | None = None

    @property
    def running(self) -> int:
        """How many containers run."""
        return sum(1 for state in self.containers if state.startswith("up") and "paused" not in state)

    @property
    def anything(self) -> bool:
        """Whether there is something to take away."""
        return bool(self.things or self.containers)


def existing_parts(sandbox: ComposeHandleData, ctx: Context) -> ExistingParts:
    """List what exists of one sandbox. Raises NotConfigured, Unavailable, BackendError."""
    with errors.explain_timeout("asking the container engine", engine=argv.engine_of(sandbox), host=ctx.host.name):
        result = ctx.host.run(argv.present(sandbox), ctx.deadline.shorter(LOOK_SECONDS))
    if result.code == 6 and not result.stdout:
        return ExistingParts()  # neither a directory nor an engine: nothing was ever made here
    if result.code == 6:
        raise errors.missing_program(argv.engine_of(sandbox), [])
    if result.code:
        raise errors.translate(result, doing="listing what exists", engine=argv.engine_of(sandbox))
    return parse_present(result.text)


def parse_present(text: str) -> ExistingParts:
    """The answer of the `present` script. A handle that cannot be read is as good as none: the name tells enough."""
    things: list[str] = []
    containers: list[str] = []
    handle_data: ComposeHandleData | None = None
    for line in text.split("\n"):
        kind, _, rest = line.partition(" ")
        if kind == "container":
            containers.append(rest.strip().lower())
        elif kind == "handle":
            handle_data = _read_handle_data(rest)
        elif line:
            things.append(line)
    return ExistingParts(things=tuple(things), containers=tuple(containers), handle_data=handle_data)


def _read_handle_data(text: str) -> ComposeHandleData | None:
    try:
        return document_bounds.decode_as(ComposeHandleData, text, bounds=document_bounds.SMALL)
    except msgspec.MsgspecError:
        return None


def marker(labels: Mapping[str, str], *, created_at: float) -> dict[str, str | int]:
    """The marker file's content: the labels, and when it was made (unix seconds)."""
    return {**labels, "created_at": int(created_at)}


def read_marker(data: bytes | None, path: str) -> dict[str, Any]:
    """A marker file; raises BackendError when there is none or it is broken."""
    try:
        value = document_bounds.decode(data or b"", bounds=document_bounds.SMALL)
    except msgspec.MsgspecError:
        value = None
    if not isinstance(value, dict):
        what = "there is no marker" if data is None else "the marker is broken"
        raise BackendError(f"{what} at {path}", hint="run `sandboxer reconcile` to see what is left of the sandbox")
    return value


class _Seen(msgspec.Struct, kw_only=True):
    """One sandbox while its parts are being collected."""

    expires_at: float | None = None
    created_at: float | None = None
    handle_data: ComposeHandleData | None = None
    parts: dict[str, int] = {}
    labels: dict[str, str] = {}


def list_sandboxes(
    ctx: Context, work_dir: str, front: ComposeCommand, minimal: Callable[[str], ComposeHandleData]
) -> Sequence[Found]:
    """Everything of `ctx.install` on the host, or an error. `minimal` gives what is known from an id alone."""
    engines = [front.engine]
    seen, more = _ask(ctx, work_dir, engines)
    if more:  # sandboxes of another engine than the one that is configured now
        engines += more
        seen, _ = _ask(ctx, work_dir, engines)
    return [
        Found(
            sandbox_id=sandbox_id,
            handle=to_handle(one.handle_data or minimal(sandbox_id)),
            labels=one.labels,
            created_at=one.created_at,
            expires_at=one.expires_at,
            detail=", ".join(f"{count} {kind}" for kind, count in sorted(one.parts.items())),
        )
        for sandbox_id, one in sorted(seen.items())
    ]


def _ask(ctx: Context, work_dir: str, engines: list[str]) -> tuple[dict[str, _Seen], list[str]]:
    for attempt in range(_TRIES):
        result = ctx.host.run(argv.inventory(ctx.install, work_dir, engines), ctx.deadline)
        if result.code == 5 and attempt < _TRIES - 1:
            continue
        if result.code:
            raise errors.translate(result, doing="listing the sandboxes of this installation", engine=engines[0])
        seen, absent = parse_inventory(result.text, install=ctx.install, work_dir=work_dir)
        others = {
            argv.engine_of(one.handle_data) for one in seen.values() if one.handle_data and one.handle_data.compose
        } - set(engines)
        if absent and seen:
            raise errors.missing_program(absent[0], [])
        return seen, sorted(others)
    raise AssertionError("unreachable")


def parse_inventory(text: str, *, install: str, work_dir: str) -> tuple[dict[str, _Seen], list[str]]:
    """The answer of the `inventory` script: sandboxes by id, and engines that are not there. Raises BackendError when
    the answer is cut off."""
    if not (text == "end" or text.endswith("\nend")):
        raise BackendError("the host's listing is cut off", hint="try again", outcome="unknown", retryable=True)
    seen: dict[str, _Seen] = {}
    handles: dict[str, ComposeHandleData] = {}
    absent: list[str] = []
    lines = iter(text.split("\n")[:-1])  # not splitlines: what a sandbox can write is one line, whatever is in it
    kind = ""
    block: list[str] = []
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "file":
            _file(PurePosixPath(rest), next(lines, ""), work_dir, install, seen, handles)
        elif word == "absent":
            absent.append(rest)
        elif word == "labels":
            _labels(kind, block, install, seen)
            kind, block = rest, []
        else:
            block.append(line)
    _labels(kind, block, install, seen)
    for sandbox_id, one in seen.items():
        one.handle_data = handles.get(sandbox_id)
    return seen, absent


def _file(
    path: PurePosixPath,
    line: str,
    work_dir: str,
    install: str,
    seen: dict[str, _Seen],
    handles: dict[str, ComposeHandleData],
) -> None:
    sandbox_id = sandbox_id_of(path.parent.name)
    if sandbox_id is None:
        return
    if path.name == "handle.json":
        handle_data = _read_handle_data(line)
        if handle_data is not None and handle_data.sandbox_id == sandbox_id:
            handles[sandbox_id] = handle_data
        return
    ours = str(path.parent.parent) == f"{work_dir}/.sandboxer"
    try:
        labels = read_marker(line.encode(), str(path))
    except BackendError:
        if ours:
            raise
        return  # what lies in the repository's directory can be written by the sandbox
    if labels.get(LABEL_INSTALL) != install or labels.get(LABEL_EXTENSION) != EXTENSION_ID:
        return
    one = seen.setdefault(sandbox_id, _Seen())
    one.parts["directory"] = 1
    if ours or one.created_at is None:
        one.labels = {str(key): str(value) for key, value in labels.items() if str(key).startswith("sandboxer.")}
        one.created_at = _number(labels.get("created_at"))
        one.expires_at = _number(labels.get(LABEL_EXPIRES))


def _labels(kind: str, block: list[str], install: str, seen: dict[str, _Seen]) -> None:
    if not kind:
        return
    try:
        items = document_bounds.decode("\n".join(block))
    except (msgspec.DecodeError, ValueError) as error:
        raise BackendError(
            f"the listing of every {kind} cannot be read", hint="try again", outcome="unknown"
        ) from error
    for item in items:
        config = item.get("Config") or {}
        labels = (config.get("Labels") if kind == "container" else item.get("Labels") or item.get("labels")) or {}
        sandbox_id = str(labels.get(LABEL_ID, ""))
        if labels.get(LABEL_INSTALL) != install or not ID.fullmatch(sandbox_id):
            continue
        one = seen.setdefault(sandbox_id, _Seen())
        one.parts[kind] = one.parts.get(kind, 0) + 1
        if "directory" in one.parts:
            continue
        one.labels = {key: str(value) for key, value in labels.items() if key.startswith("sandboxer.")}
        made = _created(item)
        if made and (one.created_at is None or made < one.created_at):
            one.created_at = made
        one.expires_at = one.expires_at or _number(labels.get(LABEL_EXPIRES))


def _created(item: Mapping[str, Any]) -> float | None:
    text = str(item.get("Created") or item.get("CreatedAt") or item.get("created") or "")
    try:
        return engine.parse_instant(text) or None
    except ValueError:
        return None


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, str | int | float) and value != "" else None
    except ValueError:
        return None
