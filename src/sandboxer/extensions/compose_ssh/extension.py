"""ext.compose-ssh: a compose stack of a repository, on this machine or over SSH.

The repository lies in `<work_dir>/sbx-<id>/`, where consumers run their commands; what we keep (marker, handle,
rewritten compose file, running sessions) in `<work_dir>/.sandboxer/sbx-<id>/`: a container that mounts the repository
must not be able to write there, and a build that copies it must not find there what differs from sandbox to sandbox.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from sandboxer.errors import BackendError, SandboxerError, Timeout, Unavailable
from sandboxer.extensions.base import (
    CanCopy,
    CanExec,
    CanLogs,
    CanRenew,
    Context,
    Found,
    SandboxExtension,
    Spec,
    Status,
)
from sandboxer.extensions.compose_ssh import argv, asked, describe, engine, errors, inspected, inventory, project
from sandboxer.extensions.compose_ssh.exec import ComposeExec
from sandboxer.extensions.compose_ssh.inventory import ExistingParts
from sandboxer.extensions.compose_ssh.options import (
    EXTENSION_ID,
    ComposeHandleData,
    ComposeOptions,
    from_handle,
    to_handle,
)
from sandboxer.hosts.base import Host, Result
from sandboxer.models import Handle, Isolation, Reachability, Ready
from sandboxer.names import LABEL_EXPIRES, LABEL_EXTENSION
from sandboxer.timing import Deadline, now

LAST_WORDS_SECONDS = 4.0
"""Time for what a crashing service last said, on top of a deadline that has passed."""
LOOK_SECONDS = 60.0
"""The longest that one look at the engine may take; more means that it hangs."""


class ComposeExtension(ComposeExec, SandboxExtension, CanExec, CanCopy, CanLogs, CanRenew):
    """Compose stacks, by `docker compose`, docker-compose or podman-compose."""

    Options = ComposeOptions

    def check(self, ctx: Context) -> None:
        """Raises NotConfigured (a program is missing), Unavailable or Denied (the engine does not answer us)."""
        front = argv.parse_compose_command(ctx.host.compose)
        with errors.explain_timeout("asking the container engine", engine=front.engine, host=ctx.host.name):
            result = ctx.host.run(argv.check(front), ctx.deadline.shorter(LOOK_SECONDS))
        lines = result.text.splitlines()
        answer = lines[-1] if lines else ""
        if answer == "fine":
            return
        gone = next((line.removeprefix("missing ") for line in lines if line.startswith("missing ")), None)
        if gone is not None:
            raise errors.missing_program(gone.removesuffix(" version"), [line.removeprefix("has ") for line in lines])
        raise errors.translate(result, doing="asking the container engine", engine=front.engine)

    def examine(self, spec: Spec, host: Host) -> None:
        """Resolve and judge the repository's compose project, as if it lay on some host."""
        front = argv.parse_compose_command(host.compose)
        directory, state = f"/srv/{spec.resource}", f"/srv/.sandboxer/{spec.resource}"
        project.prepare_project(spec, front, directory=directory, state=state, labels={}, env=host.env)

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        """Parse here, then make directories, send the repository, and `up`."""
        options: ComposeOptions = spec.options
        front = argv.parse_compose_command(ctx.host.compose)
        labels = {**spec.labels, LABEL_EXTENSION: EXTENSION_ID}
        work_dir = ctx.host.work_dir(ctx.deadline)
        directory, state = f"{work_dir}/{spec.resource}", asked.state_directory(work_dir, spec.resource)
        found = project.prepare_project(spec, front, directory=directory, state=state, labels=labels, env=ctx.host.env)
        sandbox = ComposeHandleData(
            sandbox_id=spec.sandbox_id,
            name=spec.resource,
            directory=directory,
            state=state,
            project=f"{state}/project" if found.project is None else f"{directory}/{found.project}".rstrip("/"),
            compose=list(front.words),
            services=dict(found.services),
            main=found.main,
            settle=options.settle,
            labels=labels,
            sha256=found.sha256,
            notes=list(found.notes),
        )
        handle = to_handle(sandbox)
        ctx.save(handle)

        kept = b"".join(
            json.dumps(line, separators=(",", ":")).encode() + b"\n"
            for line in (handle.data, inventory.marker(labels, created_at=now()))
        )
        self._prepare(sandbox, ctx, kept + found.file)
        ctx.progress("sync", "")
        ctx.host.sync(
            found.repo,
            sandbox.directory,
            ctx.deadline,
            exclude=asked.sync_excludes(
                found.repo, options, work_dir=work_dir if ctx.host.address().kind == "local" else None
            ),
            gitignore=options.gitignore,
            progress=lambda text: ctx.progress("sync", text),
        )
        if found.observed is not None:
            asked_of = found.observed.questions([*found.copies])
            found.observed.compare(
                _checked(ctx, argv.observe(sandbox), "looking at what was sent", sandbox, stdin=asked_of)
            )
        if found.copies:
            pinned = "".join(f"{path}\n" for path in found.copies).encode("utf-8", "surrogateescape")
            _checked(ctx, argv.pin(sandbox), "copying what the engine opens later", sandbox, stdin=pinned)
        ctx.progress("start", " ".join(front.words))
        up = argv.up(sandbox, build=found.builds, keep=sorted({*ctx.host.env, *found.variables}))
        with errors.explain_timeout(f"`{' '.join(front.words)} up`", engine=front.engine, host=ctx.host.name):
            result = ctx.host.run(up, ctx.deadline, track=f"{sandbox.state}/sessions")
        if result.code:
            raise self._why_up_failed(result, sandbox, ctx)
        return handle

    def _prepare(self, sandbox: ComposeHandleData, ctx: Context, stdin: bytes) -> None:
        engine_name = argv.engine_of(sandbox)
        with errors.explain_timeout("asking the container engine", engine=engine_name, host=ctx.host.name):
            result = ctx.host.run(argv.prepare(sandbox), ctx.deadline, stdin=stdin)
        if result.code == 0:
            return
        try:
            if result.code == 6:
                self.check(ctx)  # it knows what to type
            doing = "asking the container engine" if result.code == 7 else "making the sandbox's directory"
            raise errors.translate(result, doing=doing, engine=engine_name)
        except SandboxerError as error:
            if result.code in (6, 7):  # that it does not let us in is known before anything is made
                error.made_nothing = error.outcome_stated = True
            raise

    def wait_ready(self, handle: Handle, ctx: Context) -> Ready:
        """Ask the engine until every service is up, healthy and settled."""
        sandbox = from_handle(handle)
        ctx.progress("wait", "")
        began = time.monotonic()
        containers, verdict = self._judge(sandbox, [], 0.0, ctx)
        while isinstance(verdict, engine.Waiting):
            time.sleep(ctx.deadline.seconds(verdict.seconds))
            ctx.progress("wait", verdict.what)
            missing = verdict.what
            try:
                ctx.deadline.check("waiting for the stack")
                containers, verdict = self._judge(sandbox, containers, time.monotonic() - began, ctx)
            except Timeout as error:
                crashing = next((c for c in containers if engine.crashing(c, sandbox.settle)), None)
                if crashing is not None:
                    raise self._kept_crashing(crashing, sandbox, ctx) from error
                raise Timeout(
                    f"the stack did not come up in time: {missing}", hint="give it longer with --timeout"
                ) from error
        if isinstance(verdict, engine.Broken):
            raise self._broken(verdict, sandbox, ctx)
        address = ctx.host.address()
        reachability = Reachability(
            kind="ssh" if address.kind == "ssh" else "local",
            host=address.host,
            port=address.port,
            user=address.user,
            command=address.command,
            host_key=address.host_key,
            remote_dir=sandbox.directory,
            services=engine.published_services(containers),
        )
        return Ready(reachability=reachability, isolation=self._isolation(sandbox, ctx))

    def _isolation(self, sandbox: ComposeHandleData, ctx: Context) -> Isolation:
        found = inspected.parse_inspection(self.looked(argv.describe(sandbox), sandbox, ctx))
        own = (sandbox.directory, sandbox.pristine)
        told = describe.isolation(found, project=sandbox.name, directories=own)
        return msgspec.structs.replace(told, notes=[*told.notes, *sandbox.notes])

    def status(self, handle: Handle, ctx: Context) -> Status:
        """Running while any container runs; what cannot be listed is unknown."""
        try:
            seen = self._present(from_handle(handle), ctx)
        except SandboxerError as error:
            return Status("unknown", error.message)
        if not seen.anything:
            return Status("absent")
        if seen.running:
            return Status("running", f"{seen.running} of {len(seen.containers)} containers run")
        return Status("stopped", "no container runs" if seen.containers else "it has no containers")

    def find(self, sandbox_id: str, ctx: Context) -> Handle | None:
        """By directory, containers, networks and volumes; the handle that was written, or as much as the name tells."""
        guess = asked.handle_data_from_id(sandbox_id, ctx)
        seen = self._present(guess, ctx)
        if seen.remembered is not None and seen.remembered.compose[:1] != guess.compose[:1]:
            # another engine made it than is configured now: then that one must be asked as well
            seen = self._present(seen.remembered, ctx)
        if not seen.anything:
            return None
        return to_handle(seen.remembered or guess)

    def inventory(self, ctx: Context) -> Sequence[Found]:
        """Markers, containers, networks and volumes of this installation."""
        work_dir = ctx.host.work_dir(ctx.deadline)
        front = argv.parse_compose_command(ctx.host.compose)
        return inventory.list_sandboxes(
            ctx, work_dir, front, lambda sandbox_id: asked.handle_data_from_id(sandbox_id, ctx)
        )

    def renew(self, handle: Handle, expires_at: float | None, ctx: Context) -> None:
        """Write the expiry into the markers."""
        sandbox = from_handle(handle)
        path = f"{sandbox.state}/marker.json"
        written = inventory.read_marker(ctx.host.read_file(path, ctx.deadline), path)
        labels = {key: value for key, value in written.items() if key != LABEL_EXPIRES}
        if expires_at is not None:
            labels[LABEL_EXPIRES] = str(int(expires_at))
        line = json.dumps(labels, separators=(",", ":")).encode() + b"\n"
        _checked(ctx, argv.renew(sandbox), "writing the new expiry", sandbox, stdin=line)

    def teardown(self, handle: Handle, ctx: Context) -> None:
        """Sessions that still run, then `down`, then all that carries the project's label or name, then directories."""
        sandbox = from_handle(handle)
        problems: list[str] = []
        # each step has an end of its own, so that one that hangs leaves time for the next
        for what, share, step in (
            ("ending what still runs for it", 0.3, self._end_sessions),
            ("compose down", 0.6, self._down),
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

    def _end_sessions(self, sandbox: ComposeHandleData, ctx: Context, deadline: Deadline) -> None:
        ctx.host.end_tracked(f"{sandbox.state}/sessions", deadline)

    def _down(self, sandbox: ComposeHandleData, ctx: Context, deadline: Deadline) -> None:
        with errors.explain_timeout("it", engine=argv.engine_of(sandbox), host=ctx.host.name):
            result = ctx.host.run(argv.down(sandbox), deadline)
        if result.code:
            raise errors.translate(result, doing="it", engine=argv.engine_of(sandbox))

    def _judge(
        self, sandbox: ComposeHandleData, seen: Sequence[engine.Container], looked_for: float, ctx: Context
    ) -> tuple[list[engine.Container], engine.Verdict]:
        checks = [(c.id, c.health.timeout) for c in engine.unchecked(seen) if c.health]
        containers = self.containers(sandbox, ctx, checks=checks)
        verdict = engine.readiness(containers, sandbox.services, settle=sandbox.settle, looked_for=looked_for)
        return containers, verdict

    def _why_up_failed(self, result: Result, sandbox: ComposeHandleData, ctx: Context) -> SandboxerError:
        if len(sandbox.compose) > 1 and errors.no_plugin(result):
            self.check(ctx)
        if b"network create" in result.stderr and b"non-zero exit status" in result.stderr:
            # podman-compose swallows why a network could not be made: ask podman itself
            again = ctx.host.run(argv.network_again(sandbox), ctx.deadline)
            result = again if again.code else result
        plain = errors.translate(result, doing=" ".join([*sandbox.compose, "up"]), engine=argv.engine_of(sandbox))
        try:
            containers = self.containers(sandbox, ctx)
        except SandboxerError:
            return plain
        # `up` fails too when a service fails that another waits for; then that service's own end says more
        culprit = next((c for c in containers if c.exit_code or (c.health and c.health.status == "unhealthy")), None)
        if culprit is None or not culprit.age or culprit.error:
            return plain
        verdict = engine.readiness([culprit], {}, settle=0, looked_for=0)
        return self._broken(verdict, sandbox, ctx) if isinstance(verdict, engine.Broken) else plain

    def _broken(self, verdict: engine.Broken, sandbox: ComposeHandleData, ctx: Context) -> SandboxerError:
        said = ""
        container = verdict.container
        if container is not None:
            if container.health and container.health.status == "unhealthy":
                said = container.health.log
            said = said or self._last_lines(container, sandbox, ctx)
        details: dict[str, Any] = {"logs": said} if said else {}
        if container is not None:
            details |= {"service": container.service, "exit_code": container.exit_code}
        return BackendError(
            verdict.reason + (f". Its last words:\n{said}" if said else ""),
            hint="mend the service; with --keep-failed the stack stays, and `sandboxer logs ID` shows the rest",
            retryable=False,
            fault="caller",
            details=details,
        )

    def _kept_crashing(self, container: engine.Container, sandbox: ComposeHandleData, ctx: Context) -> Timeout:
        """The error for a service that its restart policy started again and again, until the time was over."""
        late = msgspec.structs.replace(ctx, deadline=Deadline(LAST_WORDS_SECONDS))
        code = container.exit_code or self._last_exit(container, sandbox, late)
        said = self._last_lines(container, sandbox, late)
        return Timeout(
            f"the stack did not come up in time: service {container.service!r} keeps ending with exit code {code} "
            f"({container.restarts} restarts)" + (f". Its last words:\n{said}" if said else ""),
            hint="mend the service, or give it longer with --timeout; with --keep-failed the stack stays, and "
            "`sandboxer logs ID` shows the rest",
            details={"service": container.service, "exit_code": code, **({"logs": said} if said else {})},
        )

    def _last_exit(self, container: engine.Container, sandbox: ComposeHandleData, ctx: Context) -> int:
        try:
            text = ctx.host.run(argv.last_exit(sandbox, container.id), ctx.deadline.shorter(2)).text.strip()
        except SandboxerError:
            return container.exit_code
        return int(text) if text.isdigit() else container.exit_code

    def _last_lines(self, container: engine.Container, sandbox: ComposeHandleData, ctx: Context) -> str:
        words = argv.logs(sandbox, container.id, follow=False, tail=10)
        try:
            result = ctx.host.run(words, ctx.deadline.shorter(10))
        except SandboxerError:
            return ""
        return (result.stdout + result.stderr).decode("utf-8", "replace").strip()[-1500:]

    def _present(self, sandbox: ComposeHandleData, ctx: Context) -> ExistingParts:
        with errors.explain_timeout("asking the container engine", engine=argv.engine_of(sandbox), host=ctx.host.name):
            result = ctx.host.run(argv.present(sandbox), ctx.deadline.shorter(LOOK_SECONDS))
        if result.code == 6 and not result.stdout:
            return ExistingParts()  # neither a directory nor an engine: nothing was ever made here
        if result.code == 6:
            raise errors.missing_program(argv.engine_of(sandbox), [])
        if result.code:
            raise errors.translate(result, doing="listing what exists", engine=argv.engine_of(sandbox))
        return inventory.parse_present(result.text)


def _checked(ctx: Context, words: list[str], doing: str, sandbox: ComposeHandleData, *, stdin: bytes = b"") -> bytes:
    result = ctx.host.run(words, ctx.deadline, stdin=stdin)
    if result.code:
        raise errors.translate(result, doing=doing, engine=argv.engine_of(sandbox))
    return result.stdout
