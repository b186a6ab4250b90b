"""Promise 27: what comes out of a sandbox is untrusted, and is held to limits before it fills a disk."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

from sandboxer.errors import Invalid, Unavailable
from sandboxer.extensions.base import CanCopy, Context, PathKind
from sandboxer.hosts.local import LocalHost
from sandboxer.manager import transfer
from sandboxer.models import Handle, HostSettings
from sandboxer.timing import Deadline


class Sender(CanCopy):
    """A backend that sends what it is told to."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks
        self.sent = 0

    def path_kind(self, handle: Handle, path: str, ctx: Context, *, service: str | None = None) -> PathKind:
        return "directory"

    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        archive.read()

    def get_archive(
        self, handle: Handle, path: str, sink: Callable[[bytes], None], ctx: Context, *, service: str | None = None
    ) -> None:
        for chunk in self.chunks:
            sink(chunk)
            self.sent += 1


def inside(sender: Sender) -> transfer.Inside:
    host = LocalHost("local", HostSettings())
    context = Context(host=host, install="i", deadline=Deadline(30), save=lambda handle: None)
    return transfer.Inside(sender, Handle(version=1, data={}), context, None)


def packed(links: Mapping[str, str], **files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"top/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in links.items():
            member = tarfile.TarInfo(f"top/{name}")
            member.type, member.linkname = tarfile.LNKTYPE, target
            tar.addfile(member)
    return out.getvalue()


def test_a_sandbox_that_sends_without_end_is_stopped_at_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "MAX_BYTES", 10_000)
    sender = Sender(*[bytes(1000)] * 100)
    with pytest.raises(Invalid, match="over the limit"):
        transfer.copy_out("x", str(tmp_path / "out"), inside(sender))
    assert sender.sent == 10
    assert list(tmp_path.iterdir()) == []


def test_hard_links_count_as_the_files_that_they_become(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_BYTES", 60_000)
    links = {f"l{number}": "top/a" for number in range(20)}
    with pytest.raises(Invalid, match="over the limit"):
        transfer.copy_out("x", str(tmp_path / "out"), inside(Sender(packed(links, a=bytes(5000)))))


@pytest.mark.parametrize("target", ["top/mine", "top/link", "top/b"])
def test_a_hard_link_to_what_the_archive_has_not_sent_is_left_out(tmp_path: Path, target: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    (out / "link").symlink_to(out / "mine")
    archive = packed({"b": target}, a=b"x")
    assert transfer.copy_out("x/.", str(out), inside(Sender(archive))) == 1
    assert {path.name for path in out.iterdir()} == {"mine", "link", "a"}


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "top/../../x"])
def test_a_hard_link_to_a_name_that_leaves_the_archive_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(Invalid, match="leaves it"):
        transfer.copy_out("x", str(tmp_path / "out"), inside(Sender(packed({"b": target}, a=b"x"))))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount one")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_said_and_is_no_bug(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 14."""
    archive = packed({}, a=bytes(200_000))
    with pytest.raises(Unavailable, match="no space left") as caught:
        transfer.copy_out("x", str(small / "out"), inside(Sender(archive)))
    assert str(tmp_path) not in caught.value.message
    assert "free some space" in caught.value.hint
    (tmp_path / "big").write_bytes(bytes(9 << 20))
    monkeypatch.setattr(tempfile, "tempdir", str(small))
    with pytest.raises(Unavailable, match="no space left"):
        transfer.copy_out("x", str(tmp_path / "out"), inside(Sender(archive)))
    with pytest.raises(Unavailable, match="no space left"):
        transfer.copy_in(str(tmp_path / "big"), "there", inside(Sender()))
