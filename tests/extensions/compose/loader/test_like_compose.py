"""The loader answers as docker compose v2 does, on repositories that nobody wrote by hand."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandboxer.errors import SandboxerError
from sandboxer.extensions.compose_ssh.loader import DirectoryReader, load
from tests.extensions.compose.loader.generated import Trees
from tests.extensions.compose.loader.repositories import (
    PROJECT,
    Refused,
    answer,
    comparable,
    compose,
    lowered,
    unescaped,
    written,
)
from tests.sizes import scaled

_ONLY_THEIRS = re.compile(r"must be unique|cannot override services\.\w+\.build\.ssh")
"""What docker compose alone refuses: an option that an override file repeats, the agents of a build in two files."""


def _ours(folder: Path) -> object:
    with DirectoryReader(folder) as reader:
        project = load(reader, files=None, environment={}, project_name=PROJECT, directory=str(folder))
    return comparable(project.document)


def _difference(seed: int, folder: Path, words: list[str]) -> str | None:
    tree = Trees(seed).tree()
    written(tree, folder)
    try:
        theirs = comparable(unescaped(lowered(answer(words, folder))))
    except Refused as error:
        if _ONLY_THEIRS.search(str(error)):
            return None
        theirs = f"refused: {error}"
    try:
        ours = _ours(folder)
    except SandboxerError as error:
        ours = f"refused: {error.message}"
    if ours == theirs or (str(ours).startswith("refused") and str(theirs).startswith("refused")):
        return None
    files = "".join(f"--- {path}\n{text}" for path, text in sorted(tree.items()) if path.endswith("yaml"))
    return (
        f"seed {seed}\nours   {json.dumps(ours, sort_keys=True)}\ntheirs {json.dumps(theirs, sort_keys=True)}\n{files}"
    )


@pytest.mark.timeout(scaled(600, soak=7200))
def test_generated_repositories_resolve_as_docker_compose_resolves_them(tmp_path: Path) -> None:
    words = compose("docker compose")
    seeds = range(scaled(200, soak=2000))
    folders = [tmp_path / str(seed) for seed in seeds]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda seed: _difference(seed, folders[seed], words), seeds))
    differences = [text for text in found if text]
    assert not differences, f"{len(differences)} of {len(seeds)}\n" + "\n".join(differences[:3])
