"""What ssh-config prints: as OpenSSH itself reads it, wherever an installation lies."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxer.errors import Invalid, Unsupported
from sandboxer.extensions.base import SandboxExtension
from sandboxer.manager.ssh.config import proxy_command, quoted_path
from tests.cli.running import Command
from tests.installations import create, installed
from tests.testbed.components import need


class NothingInside(SandboxExtension):
    """A backend that runs no commands."""

    check = provision = wait_ready = status = find = inventory = teardown = NotImplemented


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """An installation, below a directory with an odd name, with a sandbox called box."""
    need("sshd")
    here = Command(tmp_path_factory.mktemp("odd") / "it's 100%h $HOME; a b")
    assert here("create", "--profile", "profile.fake", "--name", "box").status == 0
    yield here
    assert here("destroy", "box").status == 0


def test_a_client_gets_in_by_what_is_printed_whatever_the_directories_are_called(box: Command) -> None:
    config = box.root / "config.ssh"
    config.write_text(box("ssh-config").stdout)
    words = ["ssh", "-F", str(config), "-o", "BatchMode=yes", "sbx-box"]
    done = subprocess.run(
        [*words, "echo out; echo err >&2; exit 9"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (9, b"out\n", b"err\n")
    shown = subprocess.run([*words[:3], "-G", "sbx-box"], capture_output=True, text=True, timeout=60, check=True)
    read = dict(line.split(" ", 1) for line in shown.stdout.splitlines())
    assert (read["user"], read["stricthostkeychecking"], read["forwardagent"]) == ("sandbox", "true", "no")
    assert shlex.split(read["proxycommand"].replace("%%", "%"))[-2] == "_ssh-proxy"


def test_the_block_is_the_same_each_time_and_its_files_are_private(box: Command) -> None:
    assert box("ssh-config", "box").stdout == box("ssh-config").stdout
    folder = box.root / "data" / "ssh"
    assert sorted(path.name for path in folder.iterdir()) == ["host_key", "known_hosts"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_programs_get_the_parts(box: Command) -> None:
    document = box("ssh-config", "--json").document
    (host,) = document["hosts"]
    assert host["names"] == [f"sbx-{host['sandbox_id']}", "sbx-box"]
    assert box("ssh-config", "box").stdout == host["config"]
    assert Path(document["known_hosts"]).read_text().startswith("sandboxer-")
    assert document["left_out"] == []


def test_one_that_is_not_there_and_none_at_all(box: Command, tmp_path: Path) -> None:
    assert box("ssh-config", "nothing-like-it").status == 3
    empty = Command(tmp_path)
    assert empty("ssh-config").stdout == "# no sandbox has a way in\n"


def test_a_backend_that_runs_nothing_inside_is_unsupported_and_left_out_of_the_list(tmp_path: Path) -> None:
    here = installed(tmp_path)
    record = create(here)
    here.manager.services.extensions.add("ext.fake", NothingInside)
    with pytest.raises(Unsupported, match="no program can be run inside"):
        here.manager.ssh_config(record.id, ["sandboxer"])
    found = here.manager.ssh_config(None, ["sandboxer"])
    assert (found.hosts, found.left_out) == ([], [record.id])


@pytest.mark.parametrize("path", ["/a\nb", '/a"b', "/a\\b", "/${HOME}", "/a\x1b[2J", "/a\u2028b"])
def test_a_path_that_cannot_be_written_there_is_refused(path: str) -> None:
    with pytest.raises(Invalid):
        quoted_path(path)


@pytest.mark.parametrize("word", ["a\nHost *", "a\rb", "\0"])
def test_words_never_make_a_second_line(word: str) -> None:
    with pytest.raises(Invalid):
        proxy_command(["program", word])
