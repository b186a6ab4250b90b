"""Collect what the checks of one project find, and give them what they judge it by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from sandboxer.extensions.compose_ssh.loader import Origin, Path, Project
from sandboxer.extensions.compose_ssh.policy.grants import Grants
from sandboxer.extensions.compose_ssh.policy.verdict import (
    ComposeProgram,
    DockerfileFindings,
    Kind,
    SourceTree,
    Violation,
    format_path,
)

LEFT_OUT: Final = object()
"""What a check answers for a value that is harmless because it is not sent."""


class PolicyInput(msgspec.Struct, frozen=True, kw_only=True):
    """What a project is judged by. Its repository will lie at `directory`, copies that no container writes in
    `pristine`; `sandbox` is the name of the sandbox, sbx-ID."""

    project: Project
    directory: str
    pristine: str
    grants: Grants
    program: ComposeProgram
    sandbox: str
    tree: SourceTree


class Gate:
    """One evaluation of the policy. Everything is collected, so that all violations are told at once."""

    def __init__(self, given: PolicyInput) -> None:
        self.project = given.project
        self.directory, self.pristine, self.sandbox = given.directory, given.pristine, given.sandbox
        self.grants, self.program, self.tree = given.grants, given.program, given.tree
        self.violations: dict[tuple[str, int, str, str], Violation] = {}
        self.unsupported: dict[str, Violation] = {}
        self.notes: dict[str, None] = {}
        self.port_notes: dict[str, None] = {}
        self.copies: set[str] = set()
        self.dockerfiles: dict[object, DockerfileFindings] = {}
        self.image_labels: dict[str, dict[str, None]] = {}  # of what is built, by service
        self.read = 0  # characters of Dockerfiles
        self.leaving: dict[tuple[str, str], str | None] = {}  # by context and directory: a link that leads out
        self._kinds: dict[str, Kind] = {}

    def kind(self, path: str) -> Kind:
        """What is at `path` of the repository. Looked up once: many services share a directory."""
        found = self._kinds.get(path)
        if found is None:
            found = self._kinds[path] = self.tree.kind(path)
        return found

    @property
    def services(self) -> dict[str, Any]:
        """The services as they came."""
        found = self.project.document.get("services")
        return found if isinstance(found, dict) else {}

    def refuse(
        self, path: Path, gives_away: str, grant: str | None = None, *, at: tuple[str, int] | None = None
    ) -> Any:
        """Note a violation; what is refused is not sent either."""
        file, line = at or self._where(path)
        found = Violation(file=file, line=line, path=format_path(path), gives_away=gives_away, grant=grant)
        self.violations[file, line, found.path, gives_away] = found
        return LEFT_OUT

    def granted(self, path: Path, gives_away: str, grant: str) -> bool:
        """Whether it was granted; a violation if not."""
        if self.grants.has(grant):
            return True
        self.refuse(path, gives_away, grant)
        return False

    def lacks(self, path: Path) -> None:
        """Note that the program does not know the key at `path`."""
        file, line = self._where(path)
        text = f"{self.program} does not know this key"
        self.unsupported[format_path(path)] = Violation(file=file, line=line, path=format_path(path), gives_away=text)

    def note(self, text: str) -> None:
        """Tell something that holds although the file says otherwise."""
        self.notes[text] = None

    def _where(self, path: Path) -> tuple[str, int]:
        origin: Origin | None = self.project.origin(path)
        if origin is not None:
            return origin.file, origin.line
        return (self.project.files[0] if self.project.files else "compose.yaml"), 1


KeyCheck = Callable[[Gate, Path, Any], Any]
"""Judges one value: what is sent in its place, or LEFT_OUT."""
