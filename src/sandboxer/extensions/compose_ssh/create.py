"""Create a compose sandbox: look at the host, send the repository, bring the stack up, and wait until it is ready."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sandboxer.errors import BackendError, SandboxerError, Timeout
from sandboxer.extensions.base import Context, Spec
from sandboxer.extensions.compose_ssh import argv, client, describe, engine, errors, inventory, project
from sandboxer.extensions.compose_ssh.handle import ComposeHandleData, from_handle, state_directory, to_handle
from sandboxer.extensions.compose_ssh.options import EXTENSION_ID, ComposeOptions, parse_compose_command
from sandboxer.hosts.base import Result
from sandboxer.models import Handle, Isolation, Reachability, Ready
from sandboxer.names import LABEL_EXTENSION
from sandboxer.timing import Deadline, now

LAST_WORDS_SECONDS = 4.0
"""Time for what a crashing service last said, on top of a deadline that has passed."""


def check(ctx: Context) -> None:
    """Raises NotConfigured (a program is missing), Unavailable or Denied (the engine does not answer us)."""
    front = parse_compose_command(ctx.host.compose)
    with errors.explain_timeout("asking the container engine", engine=front.engine, host=ctx.host.name):
        result = ctx.host.run(argv.check(front), ctx.deadline.shorter(inventory.LOOK_SECONDS))
    lines = result.text.splitlines()
    answer = lines[-1] if lines else ""
    if answer == "fine":
        return
    gone = next((line.removeprefix("missing ") for line in lines if line.startswith("missing ")), None)
    if gone is not None:
        raise errors.missing_program(gone.removesuffix(" version"), [line.removeprefix("has ") for line in lines])
    raise errors.translate(result, doing="asking the container engine", engine=front.engine)


def provision(spec: Spec, ctx: Context) -> Handle:
    """Parse here, then make directories, send the repository, and `up`."""
    options: ComposeOptions = spec.options
    front = parse_compose_command(ctx.host.compose)
    labels = {**spec.labels, LABEL_EXTENSION: EXTENSION_ID}
    work_dir = ctx.host.work_dir(ctx.deadline)
    directory, state = f"{work_dir}/{spec.resource}", state_directory(work_dir, spec.resource)
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
    _prepare(sandbox, ctx, kept + found.file)
    ctx.progress("sync", "")
    sent = ctx.host.sync(
        found.repo,
        sandbox.directory,
        ctx.deadline,
        exclude=sync_excludes(found.repo, options, work_dir=work_dir if ctx.host.address().kind == "local" else None),
        gitignore=options.gitignore,
        progress=lambda text: ctx.progress("sync", text),
    )
    for note in sent.notes:
        ctx.progress("note", note)
    if found.recorded is not None:
        asked_of = found.recorded.questions([*found.copies])
        found.recorded.compare(
            client.checked(ctx, argv.observe(sandbox), "looking at what was sent", sandbox, stdin=asked_of)
        )
    if found.copies:
        pinned = "".join(f"{path}\n" for path in found.copies).encode("utf-8", "surrogateescape")
        client.checked(ctx, argv.pin(sandbox), "copying what the engine opens later", sandbox, stdin=pinned)
    ctx.progress("start", " ".join(front.words))
    up = argv.up(sandbox, build=found.builds, keep=sorted({*ctx.host.env, *found.variables}))
    with errors.explain_timeout(f"`{' '.join(front.words)} up`", engine=front.engine, host=ctx.host.name):
        result = ctx.host.run(up, ctx.deadline, track=f"{sandbox.state}/sessions")
    if result.code:
        raise _why_up_failed(result, sandbox, ctx)
    return handle


def _prepare(sandbox: ComposeHandleData, ctx: Context, stdin: bytes) -> None:
    engine_name = argv.engine_of(sandbox)
    with errors.explain_timeout("asking the container engine", engine=engine_name, host=ctx.host.name):
        result = ctx.host.run(argv.prepare(sandbox), ctx.deadline, stdin=stdin)
    if result.code == 0:
        return
    try:
        if result.code == 6:
            check(ctx)  # it knows what to type
        doing = "asking the container engine" if result.code == 7 else "making the sandbox's directory"
        raise errors.translate(result, doing=doing, engine=engine_name)
    except SandboxerError as error:
        if result.code in (6, 7):  # that it does not let us in is known before anything is made
            error.made_nothing = error.outcome_stated = True
        raise


def wait_ready(handle: Handle, ctx: Context) -> Ready:
    """Ask the engine until every service is up, healthy and settled."""
    sandbox = from_handle(handle)
    ctx.progress("wait", "")
    began = time.monotonic()
    codes: dict[str, int] = {}
    containers, verdict = _readiness(sandbox, [], 0.0, ctx)
    while isinstance(verdict, engine.StackPending):
        time.sleep(ctx.deadline.seconds(verdict.seconds))
        ctx.progress("wait", verdict.what)
        missing = verdict.what
        try:
            ctx.deadline.check("waiting for the stack")
            for one in containers:  # asked while there is time: when it is over, it may run again
                if engine.crashing(one, sandbox.settle) and (one.exit_code or one.id not in codes):
                    codes[one.id] = one.exit_code or _last_exit(one, sandbox, ctx)
            containers, verdict = _readiness(sandbox, containers, time.monotonic() - began, ctx)
        except Timeout as error:
            crashing = next((c for c in containers if engine.crashing(c, sandbox.settle)), None)
            if crashing is not None:
                raise _kept_crashing(crashing, codes, sandbox, ctx) from error
            raise Timeout(
                f"the stack did not come up in time: {missing}", hint="give it longer with --timeout"
            ) from error
    if isinstance(verdict, engine.StackFailed):
        raise _broken(verdict, sandbox, ctx)
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
    return Ready(reachability=reachability, isolation=_isolation(sandbox, ctx))


def _isolation(sandbox: ComposeHandleData, ctx: Context) -> Isolation:
    found = engine.parse_inspection(client.look(argv.describe(sandbox), sandbox, ctx))
    own = (sandbox.directory, sandbox.pristine)
    told = describe.isolation(found, project=sandbox.name, directories=own)
    return msgspec.structs.replace(told, notes=[*told.notes, *sandbox.notes])


def _readiness(
    sandbox: ComposeHandleData, seen: Sequence[engine.Container], looked_for: float, ctx: Context
) -> tuple[list[engine.Container], engine.Verdict]:
    checks = [(c.id, c.health.timeout) for c in engine.unchecked(seen) if c.health]
    containers = client.containers(sandbox, ctx, checks=checks)
    verdict = engine.readiness(containers, sandbox.services, settle=sandbox.settle, looked_for=looked_for)
    return containers, verdict


def _why_up_failed(result: Result, sandbox: ComposeHandleData, ctx: Context) -> SandboxerError:
    if len(sandbox.compose) > 1 and errors.no_plugin(result):
        check(ctx)
    if b"network create" in result.stderr and b"non-zero exit status" in result.stderr:
        # podman-compose swallows why a network could not be made: ask podman itself
        again = ctx.host.run(argv.network_again(sandbox), ctx.deadline)
        result = again if again.code else result
    plain = errors.translate(result, doing=" ".join([*sandbox.compose, "up"]), engine=argv.engine_of(sandbox))
    try:
        containers = client.containers(sandbox, ctx)
    except SandboxerError:
        return plain
    # `up` fails too when a service fails that another waits for; then that service's own end says more
    culprit = next((c for c in containers if c.exit_code or (c.health and c.health.status == "unhealthy")), None)
    if culprit is None or not culprit.age or culprit.error:
        return plain
    verdict = engine.readiness([culprit], {}, settle=0, looked_for=0)
    return _broken(verdict, sandbox, ctx) if isinstance(verdict, engine.StackFailed) else plain


def _broken(verdict: engine.StackFailed, sandbox: ComposeHandleData, ctx: Context) -> SandboxerError:
    said = ""
    container = verdict.container
    if container is not None:
        if container.health and container.health.status == "unhealthy":
            said = container.health.log
        said = said or _last_lines(container, sandbox, ctx)
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


def _kept_crashing(
    container: engine.Container, codes: Mapping[str, int], sandbox: ComposeHandleData, ctx: Context
) -> Timeout:
    """The error for a service that its restart policy started again and again, until the time was over."""
    late = msgspec.structs.replace(ctx, deadline=Deadline(LAST_WORDS_SECONDS))
    code = container.exit_code or codes.get(container.id) or _last_exit(container, sandbox, late)
    said = _last_lines(container, sandbox, late)
    return Timeout(
        f"the stack did not come up in time: service {container.service!r} keeps ending with exit code {code} "
        f"({container.restarts} restarts)" + (f". Its last words:\n{said}" if said else ""),
        hint="mend the service, or give it longer with --timeout; with --keep-failed the stack stays, and "
        "`sandboxer logs ID` shows the rest",
        details={"service": container.service, "exit_code": code, **({"logs": said} if said else {})},
    )


def _last_exit(container: engine.Container, sandbox: ComposeHandleData, ctx: Context) -> int:
    try:
        text = ctx.host.run(argv.last_exit(sandbox, container.id), ctx.deadline.shorter(10)).text.strip()
    except SandboxerError:
        return container.exit_code
    return int(text) if text.isdigit() else container.exit_code


def _last_lines(container: engine.Container, sandbox: ComposeHandleData, ctx: Context) -> str:
    words = argv.logs(sandbox, container.id, follow=False, tail=10)
    try:
        result = ctx.host.run(words, ctx.deadline.shorter(10))
    except SandboxerError:
        return ""
    return (result.stdout + result.stderr).decode("utf-8", "replace").strip()[-1500:]


def sync_excludes(repo: Path, options: ComposeOptions, *, work_dir: str | None) -> list[str]:
    """What of the repository is not sent, as rsync's patterns. `work_dir` is that of this machine: a repository that
    holds it (a home directory, say) would be copied into its own copy, with every other sandbox."""
    patterns = ["/.sandboxer.json", *([] if options.include_git else ["/.git"])]
    if work_dir is None:
        return patterns
    inside = os.path.relpath(os.path.realpath(work_dir), os.path.realpath(repo))
    if inside == ".":
        return [*patterns, "/sbx-*", "/.sandboxer"]
    if inside.split("/")[0] != ".." and "\n" not in inside:
        # only where there is a wildcard is a backslash an escape
        special = re.search(r"[*?\[]", inside)
        patterns.append("/" + (re.sub(r"([*?\[\\])", r"\\\1", inside) if special else inside))
    return patterns
