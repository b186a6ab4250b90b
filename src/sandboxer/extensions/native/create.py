"""Create a sandbox: claim its directory, bring what it needs, start it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from sandboxer.errors import Invalid, NotConfigured
from sandboxer.extensions.base import Context, Spec
from sandboxer.extensions.native import bubblewrap, client
from sandboxer.extensions.native.errors import OldBubblewrap
from sandboxer.extensions.native.handle import SandboxPaths, to_handle
from sandboxer.extensions.native.host_facts import HostFacts
from sandboxer.extensions.native.options import NativeOptions, decode
from sandboxer.extensions.native.plan import StartPlan, plan
from sandboxer.models import Handle

_ASK = "import sys; print(sys.base_prefix if sys.version_info >= (3, 11) else '')"


def create(spec: Spec, ctx: Context, *, filter_program: Callable[[str], bytes]) -> Handle:
    """Make the directory with its marker and the tree if one is given, and start it. `filter_program` gives the filter
    of system calls for a kind of machine."""
    options = decode(spec.options)
    source = _source(spec)
    ctx.host.connect(ctx.deadline)
    paths = SandboxPaths(client.work_dir(ctx), spec.sandbox_id, ctx.install)
    facts = client.claim(paths, spec, ctx)
    python = python_home(options, facts, ctx)
    program = filter_program(facts.machine)
    planned = plan(paths, options, facts, python_home=python, synced=source is not None, program=program)
    handle = _saved(planned, ctx)
    if source is not None:
        _sync(source, paths, options, ctx)
    ctx.progress("start", paths.name)
    if "bwrap" in facts.tools:
        try:
            client.start(planned, facts, ctx)
        except OldBubblewrap:
            ctx.progress("start", "the host's bubblewrap is too old; bringing ours")
        else:
            return handle
    brought = bubblewrap.install_bubblewrap(paths, facts.machine, ctx)
    facts = facts.without_bwrap()
    planned = plan(
        paths, options, facts, python_home=python, synced=source is not None, program=program, brought=brought
    )
    handle = _saved(planned, ctx)
    client.start(planned, facts, ctx)
    return handle


def _saved(planned: StartPlan, ctx: Context) -> Handle:
    handle = to_handle(planned.sandbox)
    ctx.save(handle)
    return handle


def _sync(source: Path, paths: SandboxPaths, options: NativeOptions, ctx: Context) -> None:
    """Copy the tree that was given into the workspace."""
    ctx.progress("sync", f"{source} to {paths.workspace}")
    report = ctx.host.sync(
        source,
        paths.workspace,
        ctx.deadline,
        exclude=() if options.git else ("/.git",),
        gitignore=options.gitignore,
        progress=lambda text: ctx.progress("sync", text),
    )
    for note in report.notes:
        ctx.progress("note", note)


def _source(spec: Spec) -> Path | None:
    given = spec.inputs.get("repo")
    if not given:
        return None
    source = Path(str(given))
    if not source.is_dir():
        raise Invalid(f"input `repo`: {str(source)!r} is not a directory", hint="give the directory of the repository")
    return source


def python_home(options: NativeOptions, facts: HostFacts, ctx: Context) -> str | None:
    """The tree of a Python 3.11 or newer to show at /opt/python; None when none is asked for or /usr has one.

    Raises NotConfigured when there is none."""
    if not options.python or facts.pythons:
        return None
    if ctx.host.address().kind == "local":
        return sys.base_prefix
    done = ctx.host.run(["python3", "-c", _ASK], ctx.deadline)
    if done.code == 0 and done.text.startswith("/"):
        return done.text
    raise NotConfigured(
        f"the host {ctx.host.name} has no Python 3.11 or newer, which the profile asks for",
        hint="install python3 there, or set `options.python: false` in the profile",
    )
