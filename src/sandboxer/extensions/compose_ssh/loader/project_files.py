"""Read the files of one project: within bounds, parsed, their variables replaced, in long forms."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from sandboxer.errors import Denied, Invalid, NotFound
from sandboxer.extensions.compose_ssh.loader import dotenv
from sandboxer.extensions.compose_ssh.loader.interpolation import Interpolation
from sandboxer.extensions.compose_ssh.loader.limits import LoadUsage
from sandboxer.extensions.compose_ssh.loader.nodes import Map, invalid
from sandboxer.extensions.compose_ssh.loader.parse import parse
from sandboxer.extensions.compose_ssh.loader.project import FileReader, Origin, Path
from sandboxer.extensions.compose_ssh.loader.schema import ValueContext
from sandboxer.extensions.compose_ssh.loader.schema_project import DOCUMENT


class ProjectFiles:
    """Reads what belongs to a project, each path relative to the repository or below `directory`."""

    def __init__(self, reader: FileReader, directory: str, account: LoadUsage) -> None:
        self._reader = reader
        self.directory = posixpath.normpath(directory)
        self.account = account
        self.read: list[str] = []
        self.unset: set[str] = set()
        self.tagged = False

    def located(self, path: str, base: str, *, path_of: Path = (), origin: Origin | None = None) -> str:
        """`path`, as written in a file whose directory is `base`, relative to the repository. Raises Denied."""
        if "\0" in path:
            raise invalid("is no path", path_of, origin)
        absolute = posixpath.normpath(posixpath.join(self.directory, base, path))
        root = self.directory.rstrip("/") + "/"
        if absolute == self.directory:
            return "."
        if not absolute.startswith(root) or path.startswith("~") or "://" in path:
            where = f"{origin.file}, line {origin.line}: " if origin else ""
            wrong = "is an address, and no file of the repository" if "://" in path else "leads out of the repository"
            raise Denied(
                f"{where}{path[:200]!r} {wrong}",
                hint="put the file into the repository",
                details={"file": origin.file, "line": origin.line} if origin else None,
            )
        return absolute.removeprefix(root)

    def absolute(self, relative: str) -> str:
        """Where a directory of the repository will be on the host."""
        return posixpath.normpath(posixpath.join(self.directory, relative))

    def exists(self, path: str) -> bool:
        """Whether there is a file at `path`, relative to the repository."""
        return self._reader.exists(path)

    def data(self, path: str, *, origin: Origin | None = None) -> bytes:
        """The bytes of a file of the repository."""
        where = f"{origin.file}, line {origin.line}: " if origin else ""
        details = {"file": origin.file, "line": origin.line} if origin else None
        try:
            data = self._reader.read(path)
        except NotFound as error:
            raise Invalid(
                f"{where}{path[:200]} is not in the repository",
                hint="check the path; files that are made by a build must be there before",
                details=details,
            ) from error
        except Denied as error:
            raise Denied(f"{where}{error.message}", hint=error.hint, details=details) from error
        self.account.file(path, len(data))
        if path not in self.read:
            self.read.append(path)
        return data

    def variables(self, path: str, known: Mapping[str, str], *, origin: Origin | None = None) -> dict[str, str]:
        """The variables of a file."""
        return dotenv.parse(self.data(path, origin=origin), name=path, known=known, account=self.account)

    def documents(
        self, path: str, *, base: str, variables: Mapping[str, str], origin: Origin | None = None
    ) -> list[Map]:
        """The documents of a compose file in long forms; paths in it start from `base`."""
        substitution = Interpolation(variables, self.account, self.unset)
        documents = []
        parsed = parse(self.data(path, origin=origin), name=path, account=self.account)
        self.tagged = self.tagged or parsed.tagged
        for raw in parsed.documents:
            plain = substitution.of(raw) if parsed.shared else substitution.within(raw)
            documents.append(DOCUMENT(plain, ValueContext((), Origin(path, 1), self.absolute(base), self.account)))
        return documents
