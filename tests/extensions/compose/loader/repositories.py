"""What the tests of the loader share: repositories in memory and on disk, and docker compose v2's answer on one."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandboxer.errors import NotFound
from sandboxer.extensions.compose_ssh.loader import Project, load
from tests.testbed.components import have, need

DIRECTORY = "/srv/sbx-a"
PROJECT = "sbx-a"
Tree = Mapping[str, str | bytes]


class Memory:
    """A `FileReader` of files in a dictionary."""

    def __init__(self, tree: Tree) -> None:
        self._files = {path: text if isinstance(text, bytes) else text.encode() for path, text in tree.items()}

    def exists(self, path: str) -> bool:
        return path in self._files

    def read(self, path: str) -> bytes:
        if path not in self._files:
            raise NotFound(f"{path} is not there")
        return self._files[path]


def loaded(
    tree: Tree | str,
    *,
    files: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    profiles: Sequence[str] = (),
) -> Project:
    """The project in `tree`; a text is its compose.yaml."""
    return load(
        Memory({"compose.yaml": tree} if isinstance(tree, str) else tree),
        files=files,
        environment=environment or {},
        project_name=PROJECT,
        directory=DIRECTORY,
        profiles=profiles,
    )


def service(text: str, **variables: str) -> dict[str, Any]:
    """The service `web` with these lines in it."""
    lines = "\n".join("    " + line for line in text.splitlines())
    project = loaded(f"services:\n  web:\n    image: a\n{lines}\n", environment=variables)
    return dict(project.document["services"]["web"])


def written(tree: Tree, folder: Path) -> Path:
    """`tree` as files below `folder`."""
    for path, text in tree.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


class Refused(Exception):
    """docker compose did not take a project."""


def compose(kind: str) -> list[str]:
    """The words that start a compose program; `config` needs no engine. Skips the test where it is missing."""
    found = have(kind)
    if found is None or (kind == "podman-compose" and have("podman") is None):
        need(kind)
    return [str(found)]


def answer(
    words: Iterable[str], folder: Path, *, files: Sequence[str] = (), profiles: Sequence[str] = ()
) -> dict[str, Any]:
    """What `config` of docker compose v2 says of `folder`. Raises Refused."""
    options = [word for file in files for word in ("-f", file)]
    options += [word for profile in profiles for word in ("--profile", profile)]
    done = subprocess.run(
        [*words, "-p", PROJECT, *options, "config", "--format", "json"],
        cwd=folder,
        env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise Refused(done.stderr.decode(errors="replace")[-600:])
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def unescaped(value: Any) -> Any:
    """`$$` as `$`: compose escapes what it prints."""
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, dict):
        return {key.replace("$$", "$"): unescaped(item) for key, item in value.items()}
    return [unescaped(item) for item in value] if isinstance(value, list) else value


def comparable(document: Mapping[str, Any]) -> Any:
    """A document without what differs on purpose (docs/compose-policy.md, Differences) and what means nothing."""
    made = _reduced(document)
    services = made.get("services", {})
    for body in services.values():
        body.pop("profiles", None)
        if "extra_hosts" in body:
            body["extra_hosts"] = sorted(set(body["extra_hosts"]))
        needs = {name: item for name, item in body.pop("depends_on", {}).items() if name in services}
        if needs:
            body["depends_on"] = needs
    return made


def _reduced(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        pairs = {name: _reduced(item, name) for name, item in value.items() if not name.startswith("x-")}
        if key == "networks":  # one without settings is one
            return {name: item or {} for name, item in pairs.items()}
        # `command: []` is not the same as no command
        return {
            name: item
            for name, item in pairs.items()
            if item not in (None, False, {}, []) or (item == [] and name in _COMMANDS)
        }
    if isinstance(value, list):
        items = [_reduced(item) for item in value]
        if all(isinstance(item, dict) for item in items):
            return [json.loads(text) for text in sorted({json.dumps(item, sort_keys=True) for item in items})]
        return items
    return int(value) if isinstance(value, float) and value.is_integer() else value


_COMMANDS = ("command", "entrypoint")
_CAPITALS = re.compile(r'"(Path|Rate|Weight)":')


def lowered(document: dict[str, Any]) -> dict[str, Any]:
    """With the keys that 2.26.1 prints in capitals as they are written in files."""
    result: dict[str, Any] = json.loads(_CAPITALS.sub(lambda match: f'"{match[1].lower()}":', json.dumps(document)))
    return result
