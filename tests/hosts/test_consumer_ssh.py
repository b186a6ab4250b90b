"""The words of `sandboxer ssh`, by a real OpenSSH client and server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

from sandboxer.manager.ssh.workspace import consumer_argv
from sandboxer.models import Reachability
from tests.testbed.sshd import Sshd


def test_words_arrive_as_they_are_in_the_workspace_and_an_unknown_key_is_refused(tmp_path: Path) -> None:
    """Promises 24 and 25."""
    workspace = tmp_path / "a b"
    workspace.mkdir()
    with Sshd(tmp_path / "sshd") as server:
        settings = server.settings()
        reached = Reachability(
            kind="ssh", host=settings.address, port=settings.port, user=settings.user, remote_dir=str(workspace)
        )
        hostile = ["a b", "$(id)", "'; exit 3", "-x", ""]
        words = ["sh", "-c", 'pwd; printf "%s|" "$@"; exit 9', "sh", *hostile]
        argv = consumer_argv(reached, words, settings, tty=False)
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 9, done.stderr
        assert done.stdout == f"{workspace}\n" + "".join(f"{word}|" for word in hostile)
        (tmp_path / "empty").write_text("")
        unknown = msgspec.structs.replace(settings, known_hosts=str(tmp_path / "empty"))
        argv = consumer_argv(reached, ["true"], unknown, tty=False)
        refused = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        assert refused.returncode == 255
        assert "Host key verification failed" in refused.stderr
