"""ext.compose-ssh: a compose stack of a repository, on this machine or over SSH.

The repository lies in `<work_dir>/sbx-<id>/`, where consumers run their commands; what we keep (marker, handle,
rewritten compose file, running sessions) in `<work_dir>/.sandboxer/sbx-<id>/`: a container that mounts the repository
must not be able to write there, and a build that copies it must not find there what differs from sandbox to sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from sandboxer.errors import BackendError, SandboxerError, Unavailable
from sandboxer.extensions.base import (
    CanCopy,
    CanExec,
    CanLogs,
    CanRenew,
    CanShowUsage,
    CanStop,
    Context,
    Found,
    SandboxExtension,
    Spec,
    Status,
)
from sandboxer.extensions.compose_ssh import argv, client, create, engine, errors, inventory, power, project
from sandboxer.extensions.compose_ssh.exec import ComposeExec
from sandboxer.extensions.compose_ssh.files import ComposeFiles
from sandboxer.extensions.compose_ssh.handle import ComposeHandleData, from_handle, handle_data_from_id, to_handle
from sandboxer.extensions.compose_ssh.logs import ComposeLogs
from sandboxer.extensions.compose_ssh.options import ComposeOptions, parse_compose_command
from sandboxer.hosts.base import Host
from sandboxer.models import Handle, Ready
from sandboxer.names import LABEL_EXPIRES
from sandboxer.timing import Deadline


class ComposeExtension(
    ComposeExec, ComposeFiles, ComposeLogs, SandboxExtension, CanExec, CanCopy, CanLogs, CanRenew, CanShowUsage, CanStop
):
    """Compose stacks, by `docker compose`, docker-compose or podman-compose."""

    Options = ComposeOptions

    def check(self, ctx: Context) -> None:
        """Raises NotConfigured (a program is missing), Unavailable or Denied (the engine does not answer us)."""
        create.check(ctx)

    def examine(self, spec: Spec, host: Host) -> None:
        """Resolve and judge the repository's compose project, as if it lay on some host."""
        front = parse_compose_command(host.compose)
        directory, state = f"/srv/{spec.resource}", f"/srv/.sandboxer/{spec.resource}"
        project.prepare_project(spec, front, directory=directory, state=state, labels={}, env=host.env)

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        """Parse here, then make directories, send the repository, and `up`."""
        return create.provision(spec, ctx)

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        """Ask the engine until every service is up, healthy and settled."""
        return create.wait_ready(handle, ctx)

    def first_processes(self, handles: Sequence[Handle], ctx: Context) -> Sequence[Sequence[int]]:
        """Those of the containers, as the engine knows them."""
        shown = [client.containers(from_handle(handle), ctx) for handle in handles]
        return [[one.pid for one in containers if one.running and one.pid > 0] for containers in shown]

    def status(self, handle: Handle, ctx: Context) -> Status:
        """Running while any container runs; what cannot be listed is unknown."""
        try:
            seen = inventory.existing_parts(from_handle(handle), ctx)
        except SandboxerError as error:
            return Status("unknown", error.message)
        if not seen.anything:
            return Status("absent")
        if seen.running:
            return Status("running", f"{seen.running} of {len(seen.containers)} containers run")
        if not seen.containers:
            return Status("stopped", "its containers are gone", broken=True)  # `compose start` has nothing to start
        try:
            return power.idle_status(from_handle(handle), ctx)
        except SandboxerError as error:
            return Status("unknown", error.message)

    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        """By directory, containers, networks and volumes; the handle that was written, or as much as the name tells."""
        guess = handle_data_from_id(sandbox_id, ctx)
        seen = inventory.existing_parts(guess, ctx)
        if seen.handle_data is not None and seen.handle_data.compose[:1] != guess.compose[:1]:
            # another engine made it than is configured now: then that one must be asked as well
            seen = inventory.existing_parts(seen.handle_data, ctx)
        if not seen.anything:
            return None
        return to_handle(seen.handle_data or guess)

    def inventory(self, ctx: Context) -> Sequence[Found]:
        """Markers, containers, networks and volumes of this installation."""
        work_dir = ctx.host.work_dir(ctx.deadline)
        front = parse_compose_command(ctx.host.compose)
        return inventory.list_sandboxes(ctx, work_dir, front, lambda sandbox_id: handle_data_from_id(sandbox_id, ctx))

    def stop(self, handle: Handle, ctx: Context) -> None:
        """`compose stop`, by the file that was judged."""
        power.stop(from_handle(handle), ctx)

    def start(self, handle: Handle, expires_at: float | None, ctx: Context) -> Ready:
        """Write the end that is agreed, `compose start`, and wait as after a create."""
        self.renew(handle, expires_at, ctx)
        return power.start(from_handle(handle), ctx)

    def renew(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """Write the expiry into the markers."""
        sandbox = from_handle(handle)
        path = f"{sandbox.state}/marker.json"
        written = inventory.read_marker(ctx.host.read_file(path, ctx.deadline), path)
        labels = {key: value for key, value in written.items() if key != LABEL_EXPIRES}
        if expires_at is not None:
            labels[LABEL_EXPIRES] = str(int(expires_at))
        line = json.dumps(labels, separators=(",", ":")).encode() + b"\n"
        client.checked(ctx, argv.renew(sandbox), "writing the new expiry", sandbox, stdin=line)

    def teardown(self, handle: Handle, ctx: Context) -> None:
        """Sessions that still run, then `down`, then all that carries the project's label or name, then directories."""
        sandbox = from_handle(handle)
        problems: list[str] = []
        # each step has an end of its own, so that one that hangs leaves time for the next
        for what, share, step in (
            ("ending what still runs for it", 0.3, _end_sessions),
            ("compose down", 0.6, _down),
        ):
            left = ctx.deadline.left()
            try:
                step(sandbox, ctx, ctx.deadline.shorter(None if left is None else left * share))
            except Unavailable:
                raise
            except SandboxerError as error:
                problems.append(f"{what}: {error.message}")
        with errors.explain_timeout("removing what is left", engine=argv.engine_of(sandbox), host=ctx.host.name):
            result = ctx.host.run(argv.sweep(sandbox), ctx.deadline)
        if result.code == 0:
            return
        problems.append(errors.tail(result.stderr.decode("utf-8", "replace")))
        left_over = ", ".join(result.text.splitlines()[:20])
        unknown = result.code != 3
        if unknown:
            errors.raise_if_shut_out(result, argv.engine_of(sandbox))
        raise BackendError(
            ("it is not known what is left" if unknown else f"left behind: {left_over}")
            + "".join(f"; {problem}" for problem in problems if problem),
            hint=f"on the host: {argv.engine_of(sandbox)} ps -a --filter label={engine.PROJECT_LABEL}={sandbox.name}",
            outcome="unknown" if unknown else "failed",
            retryable=True,
        )


def _end_sessions(sandbox: ComposeHandleData, ctx: Context, deadline: Deadline) -> None:
    ctx.host.end_tracked(f"{sandbox.state}/sessions", deadline)


def _down(sandbox: ComposeHandleData, ctx: Context, deadline: Deadline) -> None:
    with errors.explain_timeout("it", engine=argv.engine_of(sandbox), host=ctx.host.name):
        result = ctx.host.run(argv.down(sandbox), deadline)
    if result.code:
        raise errors.translate(result, doing="it", engine=argv.engine_of(sandbox))
