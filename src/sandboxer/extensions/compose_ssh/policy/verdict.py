"""Describe what the policy is given and what it answers."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

import msgspec

from sandboxer.extensions.compose_ssh.loader import Path

Kind = Literal["file", "directory", "link", "other", "missing"]
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")


class ComposeProgram(enum.StrEnum):
    """The compose program that will run the document."""

    DOCKER = "docker compose"
    V1 = "docker-compose"
    PODMAN = "podman-compose"


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a file asks for and that nobody granted.

    `grant` is the word in the profile's `grants` that would allow it; None where no grant does.
    """

    file: str
    line: int
    path: str
    gives_away: str
    grant: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate decided of a project.

    `document` is the one to send; it is empty when there are violations. `unsupported` are keys that the compose
    program would not understand. `copies` are the paths, relative to the repository, that the document opens below
    `pristine`: they must lie there, unchanged by any container, whenever the engine starts something.
    `port_notes` hold only where ports are published as the file declares them.
    """

    document: dict[str, Any]
    violations: tuple[Violation, ...] = ()
    unsupported: tuple[Violation, ...] = ()
    notes: tuple[str, ...] = ()
    port_notes: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()


class DockerfileFinding(msgspec.Struct, frozen=True):
    """One thing that an instruction of a Dockerfile asks for."""

    line: int
    gives_away: str
    grant: str | None = None


class DockerfileFindings(msgspec.Struct, frozen=True):
    """What was found in a Dockerfile, the sources in the context that are copied, by line, the labels that a container
    of the image would have, and the paths in the context that are mounted while it builds, by line."""

    found: tuple[DockerfileFinding, ...]
    sources: tuple[tuple[int, str], ...]
    labels: tuple[str, ...] = ()
    mounted: tuple[tuple[int, str], ...] = ()


class SourceTree(Protocol):
    """The repository as it is sent. Paths are relative to its root; "" is the root. Links are never followed."""

    def kind(self, path: str) -> Kind:
        """What is at `path`, whose parents are known to be directories."""

    def read(self, path: str) -> bytes | None:
        """The bytes of the regular file at `path`; None when it cannot be read or is too large."""

    def entries(self, path: str) -> Mapping[str, Kind]:
        """What lies directly in the directory at `path`."""

    def target(self, path: str) -> str:
        """What the link at `path` says."""


def format_path(path: Path) -> str:
    """A path for people and for `jq`: services.web.volumes[0]."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part[:200])}]"
    return text
