"""Running the command as its users do: another process, words, streams, an exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.installations import environment, lay_out


class Answer(NamedTuple):
    """What a command said, and its exit status."""

    status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found

    @property
    def error(self) -> dict[str, Any]:
        """The error document on stdout."""
        assert set(self.document) == {"error"}, self.stdout
        found: dict[str, Any] = self.document["error"]
        return found


class Command:
    """`sandboxer` with an installation below `root`."""

    def __init__(self, root: Path, *, more: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.environment = environment(root, **(more or {}))
        if not (root / "config").exists():
            lay_out(root)

    def words(self, *words: str) -> list[str]:
        """The argv of a command."""
        return [sys.executable, "-m", "sandboxer", *words]

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start it; the caller ends it."""
        return subprocess.Popen(
            self.words(*words), env=self.environment, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __call__(self, *words: str, stdin: bytes = b"", seconds: float = 60, **more: str) -> Answer:
        """Run it to its end."""
        done = subprocess.run(
            self.words(*words),
            env={**self.environment, **more},
            cwd=self.root,
            input=stdin,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
        return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())
