"""A backend of plain directories and processes on this machine, with faults on demand. It isolates nothing.

It keeps the extension contract exactly, so that the core can be tested against every way in which a backend can fail,
quickly; it passes the same conformance suite as the real ones."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from sandboxer.errors import BackendError, NotFound
from sandboxer.extensions.base import (
    CanCopy,
    CanExec,
    CanLogs,
    CanRenew,
    Context,
    Exec,
    Found,
    PathKind,
    SandboxExtension,
    Spec,
    Status,
)
from sandboxer.hosts.base import Command, Streams
from sandboxer.models import Handle, Isolation, IsolationClaim, Manifest, Reachability, Ready, Written
from sandboxer.names import LABEL_EXPIRES, LABEL_ID, LABEL_INSTALL, MARKER_FILE, sandbox_id_of

POINTS = (
    "provision", "provision.made", "provision.saved", "wait_ready", "status", "find", "inventory",
    "teardown", "teardown.half", "teardown.done", "renew",
)  # fmt: skip
"""Where a fault can strike: before the first effect of a method (its bare name), or right after the named step."""


@dataclass
class Faults:
    """What goes wrong, where. `at(point)` is called at every point; a plan's entry is raised there, once or always."""

    plan: dict[str, BaseException] = field(default_factory=dict)
    once: bool = True
    seen: list[str] = field(default_factory=list)

    def at(self, point: str) -> None:
        """Raise what is planned for this point."""
        self.seen.append(point)
        error = self.plan.pop(point, None) if self.once else self.plan.get(point)
        if error is not None:
            raise error


class FakeOptions(Written, frozen=True, kw_only=True):
    """Options of the fake: `greeting` is written to the workspace."""

    greeting: str = "hello"


class FakeExtension(SandboxExtension, CanExec, CanCopy, CanLogs, CanRenew):
    """Sandboxes that are directories below `<work dir>`, for tests."""

    Options: ClassVar[type[Written]] = FakeOptions
    manifest: ClassVar[Manifest] = Manifest(
        id="ext.fake",
        version="1.0.0",
        class_="sandboxer.testing.fake:FakeExtension",
        title="Plain directories, for tests",
        isolation=IsolationClaim(class_="none", notes=["isolates nothing"]),
    )

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()

    def check(self, ctx: Context) -> None:
        self._root(ctx)

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        self.faults.at("provision")
        root = self._root(ctx) / spec.resource
        # The marker comes first under another name, so that a directory of ours is never without one.
        fresh = root.with_name(f".new-{spec.resource}")
        (fresh / "workspace").mkdir(parents=True)
        (fresh / MARKER_FILE).write_text(json.dumps({**spec.labels, "created_at": time.time()}))
        (fresh / "workspace" / "greeting").write_text(spec.options.greeting + "\n")
        (fresh / "log").write_text("established\n")
        fresh.rename(root)
        self.faults.at("provision.made")
        handle = Handle(version=1, data={"directory": str(root)})
        ctx.save(handle)
        self.faults.at("provision.saved")
        return handle

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        self.faults.at("wait_ready")
        directory = self._directory(handle)
        if not directory.is_dir():
            raise BackendError("the directory is gone", hint="create it again")
        return Ready(
            reachability=Reachability(kind="local", remote_dir=str(directory / "workspace")),
            isolation=Isolation(class_="none", network="host", notes=["isolates nothing"]),
        )

    def status(self, handle: Handle, ctx: Context) -> Status:
        try:
            self.faults.at("status")
        except Exception as error:  # noqa: BLE001 - the contract: a look that failed is `unknown`
            return Status("unknown", str(error))
        return Status("running" if self._directory(handle).is_dir() else "absent")

    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        self.faults.at("find")
        for name in (f"sbx-{sandbox_id}", f".new-sbx-{sandbox_id}"):
            directory = self._root(ctx) / name
            if directory.is_dir():
                return Handle(version=1, data={"directory": str(directory)})
        return None

    def inventory(self, ctx: Context) -> list[Found]:
        self.faults.at("inventory")
        found: list[Found] = []
        for directory in sorted(self._root(ctx).glob("*sbx-*")):
            labels = _labels(directory)
            sandbox_id = sandbox_id_of(directory.name.removeprefix(".new-"))
            if sandbox_id is None or labels.get(LABEL_INSTALL) != ctx.install:
                continue
            expires = str(labels.get(LABEL_EXPIRES, "never"))
            found.append(
                Found(
                    sandbox_id=str(labels[LABEL_ID]),
                    handle=Handle(version=1, data={"directory": str(directory)}),
                    created_at=labels.get("created_at"),
                    expires_at=None if expires == "never" else float(expires),
                    labels={key: str(value) for key, value in labels.items() if key.startswith("sandboxer.")},
                    detail=str(directory),
                )
            )
        return found

    def teardown(self, handle: Handle, ctx: Context) -> None:
        self.faults.at("teardown")
        directory = self._directory(handle)
        shutil.rmtree(directory / "workspace", ignore_errors=True)
        self.faults.at("teardown.half")
        shutil.rmtree(directory, ignore_errors=True)
        if directory.exists():
            raise BackendError(f"{directory} could not be removed", hint="look at its owner", outcome="unknown")
        self.faults.at("teardown.done")

    def renew(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        self.faults.at("renew")
        directory = self._directory(handle)
        if not directory.is_dir():
            raise BackendError("the directory is gone", hint="run `sandboxer reconcile`")
        labels = {**_labels(directory), LABEL_EXPIRES: "never" if expires_at is None else str(int(expires_at))}
        (directory / MARKER_FILE).write_text(json.dumps(labels))

    def exec(self, handle: Handle, request: Exec, streams: Streams, ctx: Context) -> int:
        workspace = self._directory(handle) / "workspace"
        command = Command(
            argv=request.argv,
            env=request.env,
            clean_env=True,
            cwd=str(workspace / (request.cwd or "")),
            tty=request.tty,
        )
        return ctx.host.stream(command, streams, ctx.deadline)

    def path_kind(self, handle: Handle, path: str, ctx: Context, *, service: str | None = None) -> PathKind:
        target = self._inside(handle, path)
        return "directory" if target.is_dir() else "file" if target.exists() else "absent"

    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        target = self._inside(handle, directory)
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(archive.read())) as tar:
            tar.extractall(target, filter="data")

    def get_archive(
        self,
        handle: Handle,
        path: str,
        sink: Callable[[bytes], None],
        ctx: Context,
        *,
        service: str | None = None,
    ) -> None:
        source = self._inside(handle, path)
        if not source.exists():
            raise NotFound(f"there is no {path!r}", hint="look with exec")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(source, arcname=source.name)
        sink(packed.getvalue())

    def logs(
        self,
        handle: Handle,
        streams: Streams,
        ctx: Context,
        *,
        service: str | None,
        follow: bool,
        tail: int | None,
    ) -> None:
        lines = (self._directory(handle) / "log").read_bytes().splitlines(keepends=True)
        streams.stdout(b"".join(lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]))

    def _root(self, ctx: Context) -> Path:
        root = Path(ctx.host.work_dir(ctx.deadline)) / "fake"
        root.mkdir(parents=True, exist_ok=True)
        return root

    def _directory(self, handle: Handle) -> Path:
        return Path(handle.data["directory"])

    def _inside(self, handle: Handle, path: str) -> Path:
        return self._directory(handle) / "workspace" / path


def _labels(directory: Path) -> Mapping[str, Any]:
    try:
        labels: Mapping[str, Any] = json.loads((directory / MARKER_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return labels
