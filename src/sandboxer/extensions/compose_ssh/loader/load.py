"""Load a compose project: find its files and variables, and resolve everything in them."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Final

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.loader.limits import DEFAULT, LoadLimits, LoadUsage
from sandboxer.extensions.compose_ssh.loader.model import load_model
from sandboxer.extensions.compose_ssh.loader.nodes import plain
from sandboxer.extensions.compose_ssh.loader.normalize import normalize
from sandboxer.extensions.compose_ssh.loader.project import FileReader, Origin, Path, Project
from sandboxer.extensions.compose_ssh.loader.project_files import ProjectFiles

CANDIDATES: Final = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES: Final = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)


def load(
    reader: FileReader,
    *,
    files: Sequence[str] | None,
    environment: Mapping[str, str],
    project_name: str,
    directory: str,
    profiles: Sequence[str] = (),
    limits: LoadLimits = DEFAULT,
) -> Project:
    """The project in a repository, with nothing left in it that another program would resolve.

    `files` are relative to the repository; None takes COMPOSE_FILE of its `.env`, else the first default name and its
    override file. Variables come from `environment` first, then from `.env`, never from this process. `directory` is
    where the repository will be on the host: paths are made absolute below it. Raises Invalid, Denied or NotFound with
    the file and line.
    """
    source = ProjectFiles(reader, directory, LoadUsage(limits))
    variables = _dotenv(source, "", dict(environment))
    names = [source.located(path, "") for path in _names(source, files, variables)]
    base = posixpath.dirname(names[0])
    if base:
        variables = _dotenv(source, base, variables)
    variables["COMPOSE_PROJECT_NAME"] = project_name
    wanted = profiles or [name.strip() for name in variables.get("COMPOSE_PROFILES", "").split(",") if name.strip()]
    model = load_model(source, names, base=base, variables=variables)
    document = normalize(model, files=source, name=project_name, variables=variables, profiles=wanted)
    origins: dict[Path, Origin] = {(): Origin(names[0], 1)}
    values = plain(document, origins)
    notes = [f"the variable {name} is not set: an empty text takes its place" for name in sorted(source.unset)]
    return Project(
        name=project_name,
        document=values,
        origins=origins,
        files=tuple(source.read),
        notes=tuple(notes[: limits.notes]),
    )


def file_names(
    reader: FileReader, *, files: Sequence[str] | None, environment: Mapping[str, str], limits: LoadLimits = DEFAULT
) -> list[str]:
    """Which files make up the project, as `load` finds them."""
    source = ProjectFiles(reader, "/", LoadUsage(limits))
    return _names(source, files, _dotenv(source, "", dict(environment)))


def _dotenv(source: ProjectFiles, base: str, known: dict[str, str]) -> dict[str, str]:
    path = posixpath.join(base, ".env")
    if not source.exists(path):
        return known
    return {**source.variables(path, known), **known}


def _names(source: ProjectFiles, files: Sequence[str] | None, variables: Mapping[str, str]) -> list[str]:
    if files:
        return list(files)
    listed = variables.get("COMPOSE_FILE", "")
    if listed:
        return [path for path in listed.split(variables.get("COMPOSE_PATH_SEPARATOR") or ":") if path]
    found = next((name for name in CANDIDATES if source.exists(name)), None)
    if found is None:
        raise Invalid(
            f"the repository has no compose file: looked for {', '.join(CANDIDATES)}",
            hint="name it with --input compose_file=PATH (relative to the repository)",
        )
    override = next((name for name in OVERRIDES if source.exists(name)), None)
    return [found, override] if override else [found]
