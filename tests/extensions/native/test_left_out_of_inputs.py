"""What of a repository does not reach a sandbox is told by the command that made it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.testbed.components import need


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_pipe_in_a_repository_is_named_when_the_sandbox_is_made(tmp_path: Path, more: tuple[str, ...]) -> None:
    need("bwrap")
    sandboxer = Command(tmp_path)
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "file").write_text("x")
    os.mkfifo(repo / "pipe")
    made = sandboxer("create", "--profile", "profile.native", "--name", "box", "--input", f"repo={repo}", *more)
    try:
        assert made.status == 0, made.stderr
        assert "note: 1 left out, being devices, sockets or pipes: pipe\n" in made.stderr
        assert sandboxer("exec", "box", "--", "ls").stdout == "file\n"
    finally:
        sandboxer("destroy", "box")
