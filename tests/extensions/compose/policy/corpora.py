"""The corpora of compose projects: read, laid out as a repository, loaded and judged."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from sandboxer.extensions.compose_ssh.loader import DirectoryReader, Project, load
from sandboxer.extensions.compose_ssh.policy import ComposeProgram, Grants, LocalTree, PolicyInput, Verdict, evaluate

CORPUS: Final = Path(__file__).parent / "corpus"
SANDBOX: Final = "sbx-k3v9x2m7q4ta"
DIRECTORY: Final = f"/srv/work/{SANDBOX}"
PRISTINE: Final = f"/srv/work/.sandboxer/{SANDBOX}/source"


class Case(msgspec.Struct, frozen=True):
    """One project. `path` and `grant` are what a hostile one is refused for."""

    name: str
    files: dict[str, str]
    links: dict[str, str]
    path: str = ""
    grant: str | None = None

    def lay_out(self, root: Path) -> Path:
        """Write its files below `root`."""
        for name, text in self.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        for name, target in self.links.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(target)
        return root


def cases(name: str) -> list[Case]:
    """The cases of a file: `=== NAME | PATH | GRANT`, then files that begin with `--- PATH` or `--- PATH -> TARGET`."""
    found = []
    for block in ("\n" + (CORPUS / name).read_text()).split("\n=== ")[1:]:
        head, _, body = block.partition("\n")
        title, path, grant = (part.strip() for part in (head + " | | ").split("|")[:3])
        body = body if body.startswith("--- ") else "--- compose.yaml\n" + body
        files, links = {}, {}
        for part in ("\n" + body).split("\n--- ")[1:]:
            file, _, text = part.partition("\n")
            where, arrow, target = file.partition(" -> ")
            if arrow:
                links[where.strip()] = target.strip()
            else:
                files[where.strip()] = text + "\n"
        found.append(Case(name=title, files=files, links=links, path=path, grant=grant or None))
    return found


def loaded(root: Path, *, directory: str = DIRECTORY) -> Project:
    """The project in `root`, as it will be at `directory`."""
    with DirectoryReader(root) as reader:
        return load(reader, files=None, environment={}, project_name=SANDBOX, directory=directory)


def judged(
    root: Path,
    *,
    grants: Iterable[str] = (),
    program: ComposeProgram = ComposeProgram.DOCKER,
    directory: str = DIRECTORY,
    pristine: str = PRISTINE,
) -> Verdict:
    """The verdict on the project in `root`."""
    project = loaded(root, directory=directory)
    return verdict_on(project, root, grants=grants, program=program, directory=directory, pristine=pristine)


def verdict_on(
    project: Project,
    root: Path,
    *,
    grants: Iterable[str] = (),
    program: ComposeProgram = ComposeProgram.DOCKER,
    directory: str = DIRECTORY,
    pristine: str = PRISTINE,
) -> Verdict:
    """The verdict on `project`, whose repository is at `root`."""
    given = PolicyInput(
        project=project,
        directory=directory,
        pristine=pristine,
        grants=Grants.parse(grants),
        program=program,
        sandbox=SANDBOX,
        tree=LocalTree(root),
    )
    return evaluate(given)
