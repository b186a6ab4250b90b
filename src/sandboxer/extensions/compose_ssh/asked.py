"""From a request to what is remembered of the sandbox that it asks for. Reads the repository, touches no host."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sandboxer.errors import Invalid
from sandboxer.extensions.base import Context, Spec
from sandboxer.extensions.compose_ssh import argv
from sandboxer.extensions.compose_ssh.options import ComposeHandleData, ComposeOptions
from sandboxer.names import resource_name


def repository(spec: Spec) -> tuple[Path, str | None]:
    """The repository, and the compose file that was asked for; raises Invalid."""
    repo = spec.inputs.get("repo")
    if not isinstance(repo, str) or not repo:
        raise Invalid("the input `repo` is missing", hint="give the repository with --input repo=PATH")
    if not Path(repo).is_dir():
        raise Invalid(f"repo {repo!r} is not a directory", hint="give the repository with --input repo=PATH")
    wanted = spec.inputs.get("compose_file")
    if wanted is not None and not isinstance(wanted, str):
        raise Invalid("the input `compose_file` is not text", hint="give a path relative to the repository")
    return Path(repo), wanted


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


def state_directory(work_dir: str, resource: str) -> str:
    """Where what we keep of a sandbox lies."""
    return f"{work_dir}/.sandboxer/{resource}"


def handle_data_from_id(sandbox_id: str, ctx: Context) -> ComposeHandleData:
    """What the id alone tells."""
    work_dir, name = ctx.host.work_dir(ctx.deadline), resource_name(sandbox_id)
    return ComposeHandleData(
        sandbox_id=sandbox_id,
        name=name,
        directory=f"{work_dir}/{name}",
        state=state_directory(work_dir, name),
        project=f"{work_dir}/{name}",
        compose=list(argv.parse_compose_command(ctx.host.compose).words),
    )
