"""Resolve, judge and transform the compose project of a repository into the one file that runs. Touches no host.

With `policy: trusted` nothing is judged, and the compose program resolves the file itself, beside the repository.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from sandboxer.errors import Denied, Invalid, Unsupported
from sandboxer.extensions.base import Spec
from sandboxer.extensions.compose_ssh import composefile, loader, policy
from sandboxer.extensions.compose_ssh.handle import pristine_directory
from sandboxer.extensions.compose_ssh.integrity import RecordingTree
from sandboxer.extensions.compose_ssh.options import ComposeCommand, ComposeOptions
from sandboxer.extensions.compose_ssh.policy import paths
from sandboxer.extensions.compose_ssh.transform import builds, required, transform

_BARE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./:@+=-]*[A-Za-z0-9_/]")
"""A word that YAML takes as it is, between brackets too."""
MOST_TOLD: Final = 500
"""Violations in one answer, and notes of one kind: no person reads more, and each is kept in the record."""
_TRUSTED_NOTE = "the compose file was not judged (policy: trusted)"


class PreparedProject(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox is made of. `project`: where the file lies in the repository ("" at its top), for one that the
    compose program resolves; None for one that was resolved here. `recorded` is what the judgement rests on."""

    repo: Path
    file: bytes
    services: Mapping[str, int]
    main: str
    builds: bool
    project: str | None = None
    sha256: str = ""
    notes: Sequence[str] = ()
    copies: Sequence[str] = ()
    variables: frozenset[str] = frozenset()
    recorded: RecordingTree | None = None


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


def prepare_project(
    spec: Spec,
    front: ComposeCommand,
    *,
    directory: str,
    state: str,
    labels: Mapping[str, str],
    env: Mapping[str, str],
) -> PreparedProject:
    """What will run of the repository. Raises Denied for what the policy refuses, with all of it in `details`; Invalid;
    Unsupported for what the compose program does not know. `env` are the variables of the host's settings: a file sees
    those of them that are granted."""
    options: ComposeOptions = spec.options
    repo, wanted = repository(spec)
    if options.policy == "trusted":
        return _trusted(spec.resource, repo, wanted, options, front, directory=directory, labels=labels, env=env)
    grants = policy.Grants.parse(options.grants)
    with loader.DirectoryReader(repo) as reader:
        project = loader.load(
            reader,
            files=(wanted,) if wanted else None,
            environment={**{name: env[name] for name in grants.variables if name in env}, **options.env},
            project_name=spec.resource,
            directory=directory,
        )
    recorded = RecordingTree(policy.LocalTree(repo))
    given = policy.PolicyInput(
        project=project,
        directory=directory,
        pristine=pristine_directory(state),
        grants=grants,
        program=_program(front),
        sandbox=spec.resource,
        tree=recorded,
    )
    verdict = policy.evaluate(given)
    _refuse(verdict, front)
    found = _resolved(repo, verdict.document, project, options, front, labels)
    notes = _some([*project.notes, *verdict.notes])
    notes += _some(verdict.port_notes) if options.publish == "declared" else []
    return msgspec.structs.replace(
        found,
        notes=[*notes, *grants.notes()],
        copies=paths.topmost(verdict.copies),
        variables=grants.variables,
        recorded=recorded,
    )


def _resolved(
    repo: Path,
    document: Mapping[str, Any],
    project: loader.Project,
    options: ComposeOptions,
    front: ComposeCommand,
    labels: Mapping[str, str],
) -> PreparedProject:
    document = transform(document, publish=options.publish, labels=labels, podman=front.podman)
    _check_main(options, list(document["services"]), ", ".join(project.files[:1]))
    file = loader.dump(document)
    return PreparedProject(
        repo=repo,
        file=file,
        services=required(document),
        main=options.main_service or next(iter(document["services"])),
        builds=builds(document),
        sha256=hashlib.sha256(file).hexdigest(),
    )


def _trusted(
    name: str,
    repo: Path,
    wanted: str | None,
    options: ComposeOptions,
    front: ComposeCommand,
    *,
    directory: str,
    labels: Mapping[str, str],
    env: Mapping[str, str],
) -> PreparedProject:
    """What will run of a project that is taken at its word. One file is left to the compose program, which resolves it
    beside the repository, with the host's own variables; what several make together is resolved here: the programs
    differ in how they merge, and the ports of all are remapped."""
    variables = {**env, **options.env}
    with loader.DirectoryReader(repo) as reader:
        names = loader.file_names(reader, files=(wanted,) if wanted else None, environment=variables)
        if len(names) > 1:
            project = loader.load(reader, files=names, environment=variables, project_name=name, directory=directory)
            document = {key: value for key, value in project.document.items() if key not in ("name", "version")}
            document = policy.write(document, _program(front))
            found = _resolved(repo, document, project, options, front, labels)
            return msgspec.structs.replace(found, notes=[_TRUSTED_NOTE, *_some(project.notes)])
    file = composefile.read(repo, names[0])
    _check_main(options, list(file.services), file.path)
    return PreparedProject(
        repo=repo,
        file=composefile.rewrite(file, publish=options.publish, labels=labels, podman=front.podman),
        services=file.required,
        main=options.main_service or next(iter(file.services)),
        builds=file.builds,
        project="/".join(file.path.split("/")[:-1]),
        notes=[_TRUSTED_NOTE],
    )


def _program(front: ComposeCommand) -> policy.ComposeProgram:
    if front.podman:
        return policy.ComposeProgram.PODMAN
    return policy.ComposeProgram.DOCKER if len(front.words) > 1 else policy.ComposeProgram.V1


def _refuse(verdict: policy.Verdict, front: ComposeCommand) -> None:
    if verdict.violations:
        count = len(verdict.violations)
        found: list[dict[str, Any]] = [msgspec.to_builtins(one) for one in verdict.violations[:MOST_TOLD]]
        grants = list(dict.fromkeys(one["grant"] for one in found if one["grant"]))
        places = list(dict.fromkeys(one["path"] for one in found))  # a Dockerfile is one place
        raise Denied(
            f"the compose file asks for {count} thing{'s' * (count > 1)} that nobody granted: "
            f"{', '.join(places[:5])}{', ...' * (len(places) > 5)}",
            hint=f"{_remedy(grants, whole=all(one.grant for one in verdict.violations))}; "
            "docs/compose-policy.md tells what to write instead",
            fault="caller",
            details={"violations": found},
        )
    if verdict.unsupported:
        lacking: list[dict[str, Any]] = [msgspec.to_builtins(one) for one in verdict.unsupported]
        raise Unsupported(
            f"{' '.join(front.words)} lacks {', '.join(one['path'] for one in lacking[:5])}",
            hint="use a host with another compose program, or leave it out of the file",
            details={"unsupported": lacking},
        )


def _some(notes: Sequence[str]) -> list[str]:
    more = len(notes) - MOST_TOLD
    return [*notes[:MOST_TOLD], *([f"{more} notes more are not told"] if more > 0 else [])]


def _remedy(grants: Sequence[str], *, whole: bool) -> str:
    """What to write into a profile, ready to be pasted."""
    if not grants:
        return "take it out of the file"
    words = ", ".join(grant if _BARE.fullmatch(grant) else json.dumps(grant) for grant in grants)
    rest = "it" if whole else "some of it, take the rest out of the file"
    return f"options: {{grants: [{words}]}} in a profile of yours allows {rest}"


def _check_main(options: ComposeOptions, services: Sequence[str], file: str) -> None:
    if options.main_service is not None and options.main_service not in services:
        raise Invalid(
            f"{file} has no service {options.main_service!r}, which the profile's main_service names",
            hint=f"it has: {', '.join(services)}",
        )
