"""Promise 27: what comes out of a sandbox is untrusted, and is held to limits before it fills a disk."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest

from sandboxer.errors import Denied, Invalid, Unavailable
from sandboxer.extensions.base import CanCopy, Context, PathKind
from sandboxer.hosts.local import LocalHost
from sandboxer.manager.copies import copy as file_copy
from sandboxer.manager.copies import extract
from sandboxer.models import Handle, HostSettings
from sandboxer.timing import Deadline
from tests.testbed.umasks import umask


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


def inside(sender: Sender) -> file_copy.SandboxFiles:
    host = LocalHost("local", HostSettings())
    context = Context(host=host, install="i", deadline=Deadline(30), save=lambda handle: None)
    return file_copy.SandboxFiles(sender, Handle(version=1, data={}), context, None)


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


def test_a_sandbox_that_sends_without_end_is_stopped_at_the_limit(tmp_path: Path) -> None:
    archive = packed({}, a=os.urandom(4 << 20))
    sender = Sender(*[archive[at : at + 1000] for at in range(0, len(archive), 1000)])
    with pytest.raises(Denied, match="over the limit"):
        file_copy.copy_out("x", str(tmp_path / "new" / "out"), inside(sender), max_size=100_000)
    assert sender.sent < 3000
    assert list(tmp_path.iterdir()) == []


def test_zeros_without_end_are_stopped_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_copy, "MAX_STREAM", 10 << 20)
    header = packed({}, a=b"")[:512]
    for chunks in ([bytes(1 << 20)] * 100, [header, *[bytes(1 << 20)] * 100]):
        with pytest.raises((Denied, Invalid)):
            file_copy.copy_out("x", str(tmp_path / "out"), inside(Sender(*chunks)))
        assert list(tmp_path.iterdir()) == []


def test_a_file_with_many_names_comes_out_as_one_file_and_takes_its_room_once(tmp_path: Path) -> None:
    links = {f"l{number}": "top/a" for number in range(20)}
    archive = packed(links, a=os.urandom(5000))
    file_copy.copy_out("x", str(tmp_path / "out"), inside(Sender(archive)), max_size=60_000)
    assert {path.stat().st_ino for path in (tmp_path / "out").iterdir()} == {(tmp_path / "out" / "a").stat().st_ino}
    assert (tmp_path / "out" / "a").stat().st_nlink == 21
    assert len((tmp_path / "out" / "l7").read_bytes()) == 5000


def test_where_the_disk_has_no_hard_links_they_count_as_the_files_that_they_become(tmp_path: Path) -> None:
    class Plain(extract.StagingDirectory):
        def _link(self, source: extract.Parts, parts: extract.Parts) -> None:
            self._copy(source, parts)

    stream = io.BytesIO(packed({"b": "top/a", "c": "top/a"}, a=b"text"))
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        stage = Plain(fd, extract.ExtractLimits(1 << 20, "a test"))
        stage.unpack(stream.read)
        assert stage.budget.taken == 4 * 4096
    finally:
        os.close(fd)
    assert [(path.read_text(), path.stat().st_nlink) for path in (tmp_path / "top").iterdir()] == [("text", 1)] * 3


def test_a_file_with_two_names_gets_no_more_rights_than_stood_under_either(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, mode in {"a": 0o640, "b": 0o606}.items():
        (out / name).write_text("old")
        (out / name).chmod(mode)
    file_copy.copy_out("x/.", str(out), inside(Sender(packed({"b": "top/a"}, a=b"new"))))
    assert [(path.read_text(), oct(path.stat().st_mode & 0o777)) for path in out.iterdir()] == [("new", "0o600")] * 2


def test_a_name_that_comes_again_leaves_the_files_other_name_alone(tmp_path: Path) -> None:
    linked, again = packed({"b": "top/a"}, a=b"one"), packed({}, b=b"two")
    entries = linked[: 3 * 512]  # a, its contents, and b
    file_copy.copy_out("x", str(tmp_path / "out"), inside(Sender(entries, again)))
    assert [(tmp_path / "out" / name).read_text() for name in ("a", "b")] == ["one", "two"]


@pytest.mark.parametrize("target", ["top/mine", "top/link", "top/b"])
def test_a_hard_link_to_what_the_archive_has_not_sent_is_left_out(tmp_path: Path, target: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    (out / "link").symlink_to(out / "mine")
    archive = packed({"b": target}, a=b"x")
    done = file_copy.copy_out("x/.", str(out), inside(Sender(archive)))
    assert (done.left_out, done.partial, done.said) == (1, True, ("top/b: a hard link to what was not sent",))
    assert {path.name for path in out.iterdir()} == {"mine", "link", "a"}


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "top/../../x"])
def test_a_hard_link_to_a_name_that_leaves_the_archive_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(Invalid, match="leaves it"):
        file_copy.copy_out("x", str(tmp_path / "out"), inside(Sender(packed({"b": target}, a=b"x"))))


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
    archive = packed({}, a=os.urandom(200_000))
    for asked in (None, 1 << 30):
        with pytest.raises(Denied, match=r"over the limit .* free there") as caught:
            file_copy.copy_out("x", str(small / "out"), inside(Sender(archive)), max_size=asked)
        assert str(tmp_path) not in caught.value.message
        assert "free some space" in caught.value.hint
        assert list(small.iterdir()) == []
    (tmp_path / "big").write_bytes(bytes(9 << 20))
    monkeypatch.setattr(tempfile, "tempdir", str(small))
    file_copy.copy_out("x", str(tmp_path / "out"), inside(Sender(archive)))  # nothing is kept elsewhere meanwhile
    with pytest.raises(Unavailable, match="no space left"):
        file_copy.copy_in(str(tmp_path / "big"), "there", inside(Sender()))


def test_a_disk_that_fills_meanwhile_leaves_nothing(small: Path) -> None:
    class Filling(Sender):
        def get_archive(self, *given: object, **more: object) -> None:
            with suppress(OSError):
                (small / "other").write_bytes(os.urandom(60_000))
            super().get_archive(*given, **more)  # type: ignore[arg-type]  # the very arguments

    with pytest.raises(Unavailable, match="no space left"):
        file_copy.copy_out("x", str(small / "out"), inside(Filling(packed({}, a=os.urandom(20_000)))))
    assert [path.name for path in small.iterdir()] == ["other"]


def test_a_copy_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    class Interrupted(Sender):
        def get_archive(
            self, handle: Handle, path: str, sink: Callable[[bytes], None], ctx: Context, *, service: str | None = None
        ) -> None:
            sink(self.chunks[0][:2000])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        file_copy.copy_out("x", str(tmp_path / "a" / "b" / "out"), inside(Interrupted(packed({}, a=bytes(9000)))))
    assert list(tmp_path.iterdir()) == []


FORMATS = ["gnu", "pax:0.0", "pax:0.1", "pax:1.0"]
GIB = 1 << 30


def allocated(path: Path) -> int:
    return sum(found.lstat().st_blocks * 512 for found in [path, *path.rglob("*")])


def as_tar(parent: Path, name: str, written: str) -> Iterator[bytes]:
    """The stream that GNU tar makes of an entry, holes as the format has them."""
    kind, _, version = written.partition(":")
    words = ["tar", "-C", str(parent), "-S", f"--format={kind}", *([f"--sparse-version={version}"] if version else [])]
    with subprocess.Popen([*words, "-c", name], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while chunk := process.stdout.read(65536):
            yield chunk


def with_holes(place: Path, *, size: int, pieces: int) -> Path:
    place.mkdir(parents=True)
    file = place / ("long" * 50)  # a name that no header of old holds
    with file.open("wb") as out:
        for number in range(pieces):
            out.seek(number * (size // pieces))
            out.write(f"piece {number}".encode() * 100)
        out.truncate(size)
    return file


@pytest.mark.parametrize("written", FORMATS)
def test_a_file_of_holes_comes_out_with_its_holes(tmp_path: Path, written: str) -> None:
    """3 GiB that take nothing here took 6 GiB there."""
    file = with_holes(tmp_path / "top", size=3 * GIB, pieces=50)
    stream = as_tar(tmp_path, "top", written)
    assert file_copy.copy_out("top", str(tmp_path / "out"), inside(Sender(*stream)), max_size=4 << 20).left_out == 0
    copy = tmp_path / "out" / file.name
    assert copy.stat().st_size == 3 * GIB
    assert allocated(tmp_path / "out") < 4 << 20
    with file.open("rb") as one, copy.open("rb") as other:
        for number in range(50):
            for source in (one, other):
                source.seek(number * (3 * GIB // 50))
            assert one.read(5000) == other.read(5000)


def test_zeros_that_were_sent_as_such_become_holes(tmp_path: Path) -> None:
    data = bytes(3_000_000) + b"x" + bytes(1_000_000)
    file_copy.copy_out("x", str(tmp_path / "out"), inside(Sender(packed({}, a=data))), max_size=64 << 10)
    assert (tmp_path / "out" / "a").read_bytes() == data
    assert allocated(tmp_path / "out") <= 64 << 10


def test_a_file_of_many_holes_is_read_in_every_format(tmp_path: Path) -> None:
    file = with_holes(tmp_path / "top", size=64 << 20, pieces=2000)
    for written in FORMATS:
        out = tmp_path / "out" / written
        file_copy.copy_out("top", str(out), inside(Sender(*as_tar(tmp_path, "top", written))))
        assert (out / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("free", "asked", "limit"), [
    (100 * GIB, None, 8 * GIB), (10 * GIB, None, 5 * GIB), (10 * GIB, 9 * GIB, 9 * GIB), (10 * GIB, 20 * GIB, 10 * GIB),
    (0, None, 0),
])  # fmt: skip
def test_what_a_copy_may_take(free: int, asked: int | None, limit: int) -> None:
    assert extract.extract_limits(free, asked).limit == limit


def test_more_entries_than_the_limit_are_refused(tmp_path: Path) -> None:
    spent = extract.ExtractLimits(1 << 30, "a test", entries=1000)
    archive = io.BytesIO(packed({}, **{f"f{number}": b"" for number in range(1001)}))
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(Denied, match="entries"):
            extract.StagingDirectory(fd, spent).unpack(archive.read)
    finally:
        os.close(fd)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_copy_respects_the_umask_as_cp_does(tmp_path: Path, mask: int) -> None:
    place = tmp_path / "top"
    (place / "d").mkdir(parents=True)
    for name, mode in {"script": 0o4755, "open": 0o666, "locked": 0o444, "d/private": 0o600}.items():
        (place / name).write_text(name)
        (place / name).chmod(mode)
    (place / "d").chmod(0o777)
    stream = list(as_tar(tmp_path, "top", "gnu"))
    with umask(mask):
        subprocess.run(["cp", "-r", str(place), str(tmp_path / "model")], check=True)
        file_copy.copy_out("top", str(tmp_path / "made" / "out"), inside(Sender(*stream)))
    for name in (".", "script", "open", "locked", "d", "d/private"):
        made = (tmp_path / "made" / "out" / name).stat().st_mode
        assert oct(made) == oct((tmp_path / "model" / name).stat().st_mode), name


def test_a_file_that_is_replaced_keeps_its_mode_as_with_cp(tmp_path: Path) -> None:
    target = tmp_path / "out" / "a"
    target.parent.mkdir()
    target.write_text("old and longer")
    target.chmod(0o640)
    file_copy.copy_out("x/.", str(target.parent), inside(Sender(packed({}, a=b"new"))))
    assert (target.read_text(), oct(target.stat().st_mode & 0o7777)) == ("new", "0o640")


@pytest.mark.parametrize("planted", ["a", "d"])
def test_a_link_in_the_target_is_never_written_through(tmp_path: Path, planted: str) -> None:
    precious, out = tmp_path / "precious", tmp_path / "out"
    precious.mkdir()
    (precious / "f").write_text("precious")
    out.mkdir()
    (out / planted).symlink_to(precious / "f" if planted == "a" else precious)
    archive = packed({}, **{"a": b"new", "d/f": b"new", "z": b"new"})
    with pytest.raises(Invalid, match="symbolic link"):
        file_copy.copy_out("x/.", str(out), inside(Sender(archive)))
    assert (precious / "f").read_text() == "precious"
    assert [path.name for path in out.iterdir()] == [planted]


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Invalid, match="no regular file"):
        file_copy.copy_out("x", str(tmp_path / "pipe"), inside(Sender(packed({})[:0], one_file(b"new"))))
    assert (tmp_path / "pipe").is_fifo()


def one_file(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("x")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_a_link_below_what_is_copied_in_is_sent_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "out").symlink_to("/etc/passwd")
    (tmp_path / "named").symlink_to("tree")
    kept = Keeper()
    assert file_copy.copy_in(str(tmp_path / "named"), "there", inside(kept)) == file_copy.CopyReport()
    with tarfile.open(fileobj=io.BytesIO(kept.kept)) as tar:
        assert [(one.name, one.linkname) for one in tar] == [("named", ""), ("named/out", "/etc/passwd")]


class Keeper(Sender):
    """A backend that keeps what it is sent."""

    kept = b""

    def put_archive(
        self, handle: Handle, directory: str, archive: BinaryIO, ctx: Context, *, service: str | None = None
    ) -> None:
        self.kept = archive.read()


class Shortening(Keeper):
    """One that makes a file shorter, after its size has been read, as soon as it is asked about holes."""

    def __init__(self, victim: Path, size: int) -> None:
        super().__init__()
        self.victim, self.size = victim, size

    def knows_holes(self, handle: Handle, ctx: Context, *, service: str | None = None) -> bool:
        os.truncate(self.victim, self.size)
        return True


def test_a_file_that_becomes_shorter_is_named_and_the_others_arrive(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "after").write_text("x")
    for source in (str(tree), str(tree / "a")):
        with (tree / "a").open("wb") as file:
            file.truncate(1 << 20)
            file.write(b"begin" * 2000)
        kept = Shortening(tree / "a", 5)
        done = file_copy.copy_in(source, "new", inside(kept))
        assert (done.left_out, done.partial) == (0, False)
        (note,) = done.notes
        assert note.endswith(": tree/a" if source == str(tree) else ": a")
        with tarfile.open(fileobj=io.BytesIO(kept.kept)) as tar:
            assert tar.getnames() == (["tree", "tree/a", "tree/after"] if source == str(tree) else ["a"])
            contents = tar.extractfile("tree/a" if source == str(tree) else "a")
            assert contents is not None
            assert contents.read().rstrip(bytes(1)) == b"begin"


def test_holes_are_sent_as_zeros_to_what_does_not_know_them_and_that_is_told(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(17 << 20)
    kept = Keeper()
    done = file_copy.copy_in(str(tmp_path / "holes"), "new", inside(kept))
    assert done.notes == ("files with holes take all of their size inside",)
    assert len(kept.kept) > 17 << 20


def test_what_is_left_out_of_a_copy_out_is_named_and_only_symbolic_links_are_no_matter(tmp_path: Path) -> None:
    def archive(**kinds: bytes) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, kind in {"file": tarfile.REGTYPE, **kinds}.items():
                member = tarfile.TarInfo(f"top/{name}")
                member.type = kind
                member.linkname = {tarfile.LNKTYPE: "top/link", tarfile.FIFOTYPE: ""}.get(kind, "/etc/passwd")
                tar.addfile(member)
        return out.getvalue()

    links = archive(link=tarfile.SYMTYPE, same=tarfile.LNKTYPE)
    done = file_copy.copy_out("x", str(tmp_path / "one"), inside(Sender(links)))
    assert (done.left_out, done.partial) == (2, False)
    assert done.said == ("top/link: a symbolic link", "top/same: a symbolic link")
    # a device that is said to lead somewhere is no link
    both = archive(link=tarfile.SYMTYPE, pipe=tarfile.FIFOTYPE, disk=tarfile.BLKTYPE)
    done = file_copy.copy_out("x", str(tmp_path / "two"), inside(Sender(both)))
    assert (done.left_out, done.partial) == (3, True)
    assert done.said == ("top/link: a symbolic link", "top/pipe: a pipe", "top/disk: a device")
