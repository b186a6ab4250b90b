"""The scripts that pack and unpack, run by shells and tars of this machine, without the rights of root."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import pytest

from sandboxer.errors import BackendError, Invalid, NotFound
from sandboxer.extensions.base import LeftOut
from sandboxer.extensions.shell import files
from sandboxer.hosts.base import Result, Sink
from tests.testbed.components import need

POWERLESS = (shutil.which("setpriv") or "", "--inh-caps=-all", "--bounding-set=-all") if os.geteuid() == 0 else ()
"""Runs words as root that may read and give away no more than anybody else."""
PLAIN_PATH = "/usr/local/bin:/usr/bin:/bin"


class Inside:
    """A directory in which the scripts run, and the directory of programs that come first."""

    def __init__(self, directory: Path, path: str) -> None:
        self.directory, self.path = directory, path

    def __call__(
        self,
        words: Sequence[str],
        *,
        stdin: BinaryIO | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> Result:
        shell = [shutil.which("busybox") or "", "sh"] if "busybox" in self.path else [words[0]]
        done = subprocess.run(
            [*POWERLESS, *shell, *words[1:]],
            cwd=self.directory,
            env={"PATH": f"{self.path}:{PLAIN_PATH}" if self.path else PLAIN_PATH},
            input=stdin.read() if stdin is not None else b"",
            capture_output=True,
            timeout=60,
            check=False,
        )
        for sink, data in ((stdout, done.stdout), (stderr, done.stderr)):
            if sink is not None:
                sink(data)
        return Result(done.returncode, done.stdout, done.stderr)

    def make(self, *paths: str, text: str = "x") -> None:
        for path in paths:
            place = self.directory / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    def packed(self, path: str) -> tuple[Mapping[str, tarfile.TarInfo], LeftOut | None]:
        out = bytearray()
        left = files.get_archive(self, path, out.extend)
        with tarfile.open(fileobj=io.BytesIO(bytes(out))) as tar:
            return {member.name: member for member in tar}, left


@pytest.fixture(params=["dash and GNU tar", "busybox"])
def inside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Inside:
    directory = tmp_path_factory.mktemp("inside")
    path = ""
    if request.param == "busybox":
        need("busybox")
        applets = tmp_path_factory.mktemp("busybox")
        subprocess.run(["busybox", "--install", "-s", str(applets)], check=True)
        path = str(applets)
    return Inside(directory, path)


def test_what_is_at_a_path(inside: Inside) -> None:
    inside.make("file", "-C")
    (inside.directory / "nowhere").symlink_to("/no/such/place")
    kinds = {
        path: files.path_kind(inside, path) for path in (".", "file", "-C", "nowhere", "absent", "file/below", "/")
    }
    assert kinds == {
        ".": "directory",
        "file": "file",
        "-C": "file",
        "nowhere": "file",
        "absent": "absent",
        "file/below": "absent",
        "/": "directory",
    }


def test_a_tree_is_unpacked_with_its_modes_and_packed_again(inside: Inside) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("run.sh")
        member.mode, member.size, member.uid = 0o751, 4, 12345
        tar.addfile(member, io.BytesIO(b"true"))
    archive.seek(0)
    files.put_archive(inside, "-x/new dir", archive, hint="")
    status = (inside.directory / "-x/new dir/run.sh").stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o751, os.geteuid())
    members, left = inside.packed("-x")
    assert (set(members), left) == ({"-x", "-x/new dir", "-x/new dir/run.sh"}, None)


def test_an_archive_that_is_a_file_inside_is_removed_whatever_became_of_it(inside: Inside) -> None:
    with tarfile.open(inside.directory / "sent.tar", mode="w") as tar:
        tar.addfile(tarfile.TarInfo("one"))
    sent = str(inside.directory / "sent.tar")
    files.put_archive_file(inside, "into", sent, hint="")
    assert sorted(path.name for path in inside.directory.iterdir()) == ["into"]
    inside.make("sent.tar", text="no archive at all")
    with pytest.raises(BackendError, match=r"could not be written to 'into': .*") as caught:
        files.put_archive_file(inside, "into", sent, hint="look there")
    assert caught.value.hint == "look there"
    assert sorted(path.name for path in inside.directory.iterdir()) == ["into"]


@pytest.mark.parametrize("path", ["tree", "tree/", "tree/.", "tree/sub/..", "link", "."])
def test_a_directory_is_packed_under_its_own_name_whatever_leads_to_it(inside: Inside, path: str) -> None:
    inside.make("tree/file", "tree/sub/file")
    (inside.directory / "link").symlink_to("tree")
    members, _ = inside.packed(path)
    (top,) = {name.partition("/")[0] for name in members}
    assert top == (inside.directory.name if path == "." else "tree")


def test_a_link_that_was_asked_for_is_followed_and_those_below_are_not(inside: Inside) -> None:
    inside.make("real/file")
    (inside.directory / "real/root").symlink_to("/")
    (inside.directory / "name").symlink_to("real/file")
    (inside.directory / "nothing").symlink_to("/no/such/place")
    assert inside.packed("name")[0]["name"].isreg()
    assert inside.packed("real")[0]["real/root"].issym()
    with pytest.raises(BackendError, match="leads to /"):
        inside.packed("real/root")
    with pytest.raises(BackendError, match="a link to nothing"):
        inside.packed("nothing")


def test_both_names_of_a_file_are_packed(inside: Inside) -> None:
    inside.make("tree/one")
    (inside.directory / "tree/two").hardlink_to(inside.directory / "tree/one")
    members, left = inside.packed("tree")
    assert left is None
    links = [member for member in members.values() if member.islnk()]
    assert set(members) == {"tree", "tree/one", "tree/two"}
    assert [link.linkname in members for link in links] == [True]


def test_what_is_not_there_and_what_cannot_be_named_is_refused(inside: Inside) -> None:
    for path in ("absent", "absent/below"):
        with pytest.raises(NotFound):
            inside.packed(path)
    for path in ("/", "//", "a\0b"):
        with pytest.raises(Invalid):
            inside.packed(path)


def test_unreadable_files_and_sockets_are_left_out_and_counted_and_the_others_come(inside: Inside) -> None:
    inside.make("tree/a", "tree/new\nline", "tree/closed", "tree/dir/below", "tree/z")
    for name in ("closed", "new\nline", "dir"):
        (inside.directory / "tree" / name).chmod(0)
    os.mkfifo(inside.directory / "tree/fifo")
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(inside.directory / "tree/socket"))
        members, left = inside.packed("tree")
    assert {"tree", "tree/a", "tree/z", "tree/fifo"} <= set(members)
    assert members["tree/fifo"].isfifo()
    assert left is not None
    sent = {name for name in members if name != "tree/dir"}
    assert "tree/socket" not in sent or members["tree/socket"].type not in tarfile.SUPPORTED_TYPES
    assert left.count == 4 - ("tree/socket" in sent)
    assert any("closed" in said for said in left.said)


def test_more_than_can_be_shown_is_counted(inside: Inside) -> None:
    inside.make("tree/z")
    for number in range(300):
        inside.make(f"tree/{number}")
        (inside.directory / f"tree/{number}").chmod(0)
    _, left = inside.packed("tree")
    assert left is not None
    assert (left.count, len(left.said)) == (300, 20)


def test_the_path_itself_must_be_readable(inside: Inside) -> None:
    inside.make("closed", "dir/file")
    for name in ("closed",) if POWERLESS and inside.path else ("closed", "dir"):  # busybox: root may, it thinks
        (inside.directory / name).chmod(0)
        with pytest.raises(BackendError, match=f"'{name}' could not be read: permission denied") as caught:
            inside.packed(name)
        assert "readable" in caught.value.hint
    (inside.directory / "dir").chmod(0o700)


def test_a_tar_that_gives_up_is_an_error(inside: Inside, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "tar").write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] || { echo 'tar: -: Wrote only 1 byte' >&2\n"
        "echo 'tar: Error is not recoverable: exiting now' >&2\nexit 2; }\n"
    )
    (programs / "tar").chmod(0o755)
    inside.make("file")
    inside.path = str(programs)
    with pytest.raises(BackendError, match="not recoverable"):
        inside.packed("file")


def test_an_inside_without_tar_is_told_so(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.extensions.shell.test_files.PLAIN_PATH", "/no/such/place")
    inside.path = ""
    inside.make("file")
    with pytest.raises(BackendError, match="no tar"):
        inside.packed("file")
    with pytest.raises(BackendError, match="no tar"):
        files.put_archive(inside, "x", io.BytesIO(), hint="")
