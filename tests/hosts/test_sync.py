"""Trees arrive as they are, by rsync and by tar, here and over SSH."""

import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import which

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxer.errors import BackendError, Invalid, SandboxerError
from sandboxer.hosts.base import Command, Host, Streams, SyncReport
from sandboxer.hosts.local import LocalHost
from sandboxer.hosts.ssh.host import SshHost
from sandboxer.hosts.trees import beneath, sync
from sandboxer.hosts.trees.progress import format_bytes
from sandboxer.hosts.trees.rsync import CHANGED, GONE, RsyncComplaints, RsyncOutput, listing, rsync_argv, rsync_notes
from sandboxer.hosts.trees.tar_writer import MAX_EXTENTS, TarWriter, data_extents
from sandboxer.hosts.trees.walk import TreeWalk
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline
from tests.hosts.conftest import settings_for
from tests.testbed.components import need
from tests.testbed.sshd import Sshd

Way = Callable[..., SyncReport]


def plant(top: Path) -> None:
    """A tree with everything that goes wrong: names, modes, links, an ignored file, a device-like thing."""
    for name in (
        "plain",
        "-rf",
        "a:b",
        "sp ace",
        "new\nline",
        "qu'o\"te",
        "$(id)",
        "*",
        "tab\t",
        "ünï",
        "\udcff\udcfe",
    ):
        path = top / name
        path.write_text(f"in {name!r}")
        path.chmod(0o640)
    (top / "deep" / "er").mkdir(parents=True)
    (top / "deep" / "er" / "run.sh").write_text("#!/bin/sh\n")
    (top / "deep" / "er" / "run.sh").chmod(0o755)
    (top / "deep").chmod(0o751)
    (top / "link").symlink_to("deep/er")
    (top / "dangling").symlink_to("/nowhere/at all")
    (top / "empty").mkdir()
    (top / ".git").mkdir()
    (top / ".git" / "config").write_text("x")
    (top / "deep" / ".git").write_text("a submodule's")
    (top / "big").write_bytes(os.urandom(300_000))
    os.utime(top / "plain", (1_500_000_000, 1_500_000_000))
    os.mkfifo(top / "fifo")


def walked(top: Path, exclude: Sequence[str] = ()) -> set[str]:
    """The names that are copied of a tree, its .gitignore files honoured."""
    with beneath.directory(top) as fd:
        return {entry.relative for entry in TreeWalk(exclude, gitignore=True).entries(fd)}


def picture(top: Path) -> dict[str, tuple[object, ...]]:
    """What a tree holds, as far as a sync keeps it."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFLNK:
            found[str(path.relative_to(top))] = ("link", str(path.readlink()))
        elif kind == stat.S_IFREG:
            found[str(path.relative_to(top))] = (oct(status.st_mode), int(status.st_mtime), path.read_bytes())
        else:
            found[str(path.relative_to(top))] = (oct(status.st_mode),)
    return found


def by_tar(host: Host, source: Path, target: str, deadline: Deadline, **options: object) -> SyncReport:
    """The way for hosts without rsync, whatever this one has."""
    assert host.run(["mkdir", "-p", target], deadline).code == 0
    copy = sync.TreeCopy(source=source, target=target, **options)  # type: ignore[arg-type]
    return sync.sync_tar(host, copy, deadline, where="here")


def by_rsync(host: Host, source: Path, target: str, deadline: Deadline, **options: object) -> SyncReport:
    report = host.sync(source, target, deadline, **options)  # type: ignore[arg-type]
    assert report.method == "rsync"
    return report


@pytest.mark.parametrize("way", [by_rsync, by_tar])
def test_a_tree_arrives_as_it_is(host: Host, tmp_path: Path, way: Way) -> None:
    source, target = tmp_path / "so:ur ce", tmp_path / "-to" / "it's a:new\ndir"
    source.mkdir()
    plant(source)
    way(host, source, str(target), Deadline(30), exclude=["/.git"])
    wanted = picture(source)
    for gone in (".git", ".git/config", "fifo"):
        del wanted[gone]
    assert picture(target) == wanted


@pytest.mark.parametrize("way", [by_rsync, by_tar])
def test_what_is_neither_file_directory_nor_link_is_left_out_and_named(host: Host, tmp_path: Path, way: Way) -> None:
    (tmp_path / "a" / "sub").mkdir(parents=True)
    os.mkfifo(tmp_path / "a" / "sub" / "pipe")
    os.mkfifo(tmp_path / "a" / "first")
    report = way(host, tmp_path / "a", str(tmp_path / "b"), Deadline(30))
    assert "2 left out, being devices, sockets or pipes: first, sub/pipe" in report.notes
    assert picture(tmp_path / "b").keys() == {".", "sub"} or list(picture(tmp_path / "b")) == ["sub"]


@pytest.mark.parametrize("way", [by_rsync, by_tar])
def test_a_second_copy_brings_changes_and_takes_nothing_away(host: Host, tmp_path: Path, way: Way) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    (source / "f").write_text("one")
    way(host, source, str(target), Deadline(30))
    (target / "made there").write_text("kept")
    (source / "f").write_text("two, longer")
    way(host, source, str(target), Deadline(30))
    assert (target / "f").read_text() == "two, longer"
    assert (target / "made there").read_text() == "kept"


@pytest.mark.parametrize("way", [by_rsync, by_tar])
def test_a_copy_does_not_write_through_a_link_in_the_target(host: Host, tmp_path: Path, way: Way) -> None:
    source, target, outside = tmp_path / "a", tmp_path / "b", tmp_path / "outside"
    (source / "d").mkdir(parents=True)
    (source / "d" / "f").write_text("new")
    (source / "g").write_text("new")
    target.mkdir()
    outside.mkdir()
    (outside / "g").write_text("precious")
    (target / "d").symlink_to(outside)
    (target / "g").symlink_to(outside / "g")
    way(host, source, str(target), Deadline(30))
    assert sorted(p.name for p in outside.iterdir()) == ["g"]
    assert (outside / "g").read_text() == "precious"
    assert (target / "d" / "f").read_text() == "new"


@pytest.mark.parametrize("strict", [True, False])
def test_a_tree_that_is_held_is_what_arrives_whatever_its_name_leads_to(
    host: Host, tmp_path: Path, *, strict: bool
) -> None:
    source, outside = tmp_path / "a", tmp_path / "outside"
    for place, text in ((source, "inside"), (outside, "outside")):
        place.mkdir()
        (place / "whose").write_text(text)
    held = beneath.PinnedPath(os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), str(source), strict=strict)
    try:
        source.rename(tmp_path / "aside")
        source.symlink_to(outside)
        report = host.sync(Path(held.path), str(tmp_path / "b"), Deadline(60))
    finally:
        held.close()
    assert (report.method, report.notes) == ("tar" if strict else "rsync", ())
    assert (tmp_path / "b" / "whose").read_text() == "inside"


@pytest.mark.parametrize("way", [by_rsync, by_tar])
@pytest.mark.parametrize("gitignore", [False, True])
def test_hard_links_arrive_under_each_name_and_as_links(
    host: Host, tmp_path: Path, way: Way, *, gitignore: bool
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "deep").mkdir(parents=True)
    (source / "one").write_text("x")
    for other in ("two", "deep/\udcff three"):
        (source / other).hardlink_to(source / "one")
    (source / "out").hardlink_to(source / "one")
    (source / "new").write_text("of a link that is left out")
    (source / "zoo").hardlink_to(source / "new")
    (source / ".gitignore").write_text("nothing\n")
    report = way(host, source, str(target), Deadline(60), exclude=["/out", "/new"], gitignore=gitignore)
    names = ["one", "two", "deep/\udcff three"]
    assert [(target / name).read_text() for name in names] == ["x"] * 3
    assert len({(target / name).stat().st_ino for name in names}) == 1
    assert (target / "zoo").read_text() == "of a link that is left out"
    assert report.notes == (() if way is by_rsync else (sync.TAR_NOTE.format(where="here"),))


def holes(path: Path) -> None:
    """A file of 3 GiB with little in it: at its beginning, in its middle and, for another, at its end."""
    with path.open("wb") as file:
        file.write(b"first")
        file.seek(2 << 30)
        file.write(b"middle")
        file.truncate(3 << 30)


@pytest.mark.parametrize("way", [by_rsync, by_tar])
@pytest.mark.parametrize("gitignore", [False, True])
def test_a_file_with_large_holes_stays_one_and_its_zeros_are_not_sent(
    host: Host, tmp_path: Path, way: Way, *, gitignore: bool
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "d\udcff").mkdir(parents=True)
    names = ["d\udcff/disk", "d\udcff/hard", "ends", "empty"]
    holes(source / names[0])
    (source / names[1]).hardlink_to(source / names[0])
    with (source / "ends").open("wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
    with (source / "empty").open("wb") as file:
        file.truncate(1 << 30)
    (source / "plain").write_text("x")
    os.utime(source / "d\udcff", (1_500_000_000, 1_500_000_000))
    report = way(host, source, str(target), Deadline(300), gitignore=gitignore)
    assert report.sent_bytes < 8 << 20
    assert report.files == 5
    for name in names:
        was, arrived = (source / name).stat(), (target / name).stat()
        assert (arrived.st_size, arrived.st_mode, int(arrived.st_mtime)) == (
            was.st_size, was.st_mode, int(was.st_mtime),
        )  # fmt: skip
        assert arrived.st_blocks * 512 < 1 << 20
    for at, wanted in ((0, b"first\0"), ((2 << 30) - 1, b"\0middle\0")):
        with (target / names[0]).open("rb") as file:
            file.seek(at)
            assert file.read(len(wanted)) == wanted
    assert (target / names[0]).stat().st_ino == (target / names[1]).stat().st_ino
    with (target / "ends").open("rb") as file:
        file.seek((1 << 30) - 2)
        assert file.read() == b"\0\0end"
    assert (target / "d\udcff").stat().st_mode == (source / "d\udcff").stat().st_mode
    if way is by_rsync:
        assert int((target / "d\udcff").stat().st_mtime) == 1_500_000_000
    assert (target / "plain").read_text() == "x"


@pytest.mark.parametrize("way", [by_rsync, by_tar])
def test_a_file_with_holes_does_not_go_through_a_link_in_the_target(host: Host, tmp_path: Path, way: Way) -> None:
    source, target, outside = tmp_path / "a", tmp_path / "b", tmp_path / "outside"
    for place in (source / "d", target, outside):
        place.mkdir(parents=True)
    holes(source / "d" / "disk")
    (target / "d").symlink_to(outside)
    way(host, source, str(target), Deadline(300))
    assert list(outside.iterdir()) == []
    assert (target / "d" / "disk").stat().st_size == 3 << 30


def test_any_pattern_of_holes_arrives_as_it_is(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    page = 4096
    wanted: dict[str, bytes] = {}
    for number, pattern in enumerate(["x", "-x", "x-", "x-x", "-", "xx--x-xx-", "-" * 40 + "x" + "-" * 40]):
        path = source / f"f{number}"
        with path.open("wb") as file:
            for at, what in enumerate(pattern * 5):
                if what == "x":
                    file.seek(at * page)
                    file.write(os.urandom(page))
            file.truncate(len(pattern) * 5 * page + 17 * number)
        wanted[path.name] = path.read_bytes()
    by_tar(LocalHost("local", HostSettings()), source, str(target), Deadline(60))
    assert {path.name: path.read_bytes() for path in target.iterdir()} == wanted
    assert (target / "f6").stat().st_blocks * 512 < (target / "f6").stat().st_size


def test_a_file_with_more_holes_than_are_told_arrives_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "f"
    with path.open("wb") as file:
        for number in range(20_000):
            file.seek(number * 8192)
            file.write(b"x")
        file.truncate(1 << 30)
    with path.open("rb") as file:
        assert len(data_extents(file.fileno(), 1 << 30)) <= MAX_EXTENTS
    by_tar(LocalHost("local", HostSettings()), tmp_path / "a", str(tmp_path / "b"), Deadline(120))
    with path.open("rb") as was, (tmp_path / "b" / "f").open("rb") as arrived:
        assert was.read(20_000 * 8192) == arrived.read(20_000 * 8192)
    assert (tmp_path / "b" / "f").stat().st_size == 1 << 30


def test_a_tar_that_knows_no_holes_gets_zeros_and_the_user_is_told(tmp_path: Path) -> None:
    need("busybox")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tar").symlink_to(which("busybox") or "")
    (tmp_path / "a").mkdir()
    with (tmp_path / "a" / "f").open("wb") as file:
        file.truncate(32 << 20)

    class Host(LocalHost):
        """One whose system has another tar."""

        def stream(self, command: Command, streams: Streams, deadline: Deadline) -> int:
            argv = list(command.argv)
            if "tar" in argv:
                argv[argv.index("tar")] = str(tmp_path / "bin" / "tar")
            return super().stream(msgspec.structs.replace(command, argv=argv), streams, deadline)

    report = by_tar(Host("local", HostSettings()), tmp_path / "a", str(tmp_path / "b"), Deadline(60))
    assert (tmp_path / "b" / "f").read_bytes() == bytes(32 << 20)
    assert any("neither GNU's nor bsdtar" in note for note in report.notes)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda path: os.truncate(path, 1 << 20), 8 << 20),
        (lambda path: path.open("ab").write(b"more"), 8 << 20),
        (lambda path: path.unlink(), 8 << 20),  # it is open, and is read to its end
    ],
)
def test_a_file_that_changes_while_tar_reads_it_is_a_note_and_the_others_come(
    host: Host, tmp_path: Path, change: Callable[[Path], object], left: int
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    (source / "1 big").write_bytes(b"x" * (8 << 20))
    (source / "2 other").write_text("here")
    (source / "3 going").write_text("gone when it is its turn")
    done: list[object] = []

    def meanwhile(_: str) -> None:
        if not done:
            done.append(change(source / "1 big"))
            (source / "3 going").unlink()

    report = by_tar(host, source, str(target), Deadline(60), progress=meanwhile)
    assert done
    assert (target / "1 big").stat().st_size == left
    assert (target / "2 other").read_text() == "here"
    assert not (target / "3 going").exists()
    assert GONE in report.notes
    assert (CHANGED in report.notes) == (source / "1 big").exists()


def test_a_file_that_becomes_shorter_while_rsync_reads_it_is_a_note_and_the_others_come(
    tmp_path: Path, sshd: Sshd, opened: Callable[..., SshHost]
) -> None:
    """The program that stands in for rsync runs it slowly, and cuts the file once its copy has begun."""
    source, programs = tmp_path / "a", tmp_path / "bin"
    source.mkdir()
    programs.mkdir()
    (programs / "rsync").write_text(
        f"""#!/bin/sh
case " $* " in *" --server "*) exec {which("rsync")} "$@";; esac
{which("rsync")} --bwlimit=2m "$@" & pid=$!
for last; do :; done
until ls -A "${{last#sbx:}}" | grep -q '^[.]big'; do sleep 0.02; done
truncate -s 1M {source}/big; wait $pid
"""
    )
    (programs / "rsync").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    hosts = [LocalHost("local", HostSettings(), environ={**os.environ, "PATH": path})]
    for number, host in enumerate([*hosts, opened("remote", settings_for(sshd), PATH=path)]):
        (source / "big").write_bytes(os.urandom(6 << 20))
        (source / "small").write_text("x")
        report = host.sync(source, str(tmp_path / f"b{number}"), Deadline(120))
        assert (report.method, report.notes) == ("rsync", (CHANGED,))
        assert (tmp_path / f"b{number}" / "big").read_bytes() == (source / "big").read_bytes()
        assert (tmp_path / f"b{number}" / "small").read_text() == "x"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    class Broken(TarWriter):
        """One whose disk fails."""

        def add_file(self, fd: int, *, name: str) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "bad").write_text("x")
    archive = tarfile.open(fileobj=io.BytesIO(), mode="w|")  # noqa: SIM115 - never ended
    with beneath.directory(tmp_path) as top:
        entries = (entry for entry in TreeWalk().entries(top) if entry.name == "bad")
        with pytest.raises(OSError, match="Input/output error: 'deep/bad'"):
            Broken(archive).add(next(entries), name="bad")


def test_progress_and_report_tell_what_was_sent(host: Host, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for n in range(3):
        (tmp_path / "a" / str(n)).write_bytes(os.urandom(400_000))
    told: list[str] = []
    report = host.sync(tmp_path / "a", str(tmp_path / "b"), Deadline(30), progress=told.append)
    assert report.files == 3
    assert report.sent_bytes >= 1_200_000
    assert told[-1] == "1.2 MB"
    assert report.notes == ()


def test_without_rsync_tar_does_it_and_says_so(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "mkdir", "tar", "rm"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    host = LocalHost("local", HostSettings(), environ={"PATH": str(programs), "HOME": "/"})
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("x")
    report = host.sync(tmp_path / "a", str(tmp_path / "b"), Deadline(30))
    assert (report.method, report.files) == ("tar", 1)
    assert "rsync is not installed here" in report.notes[0]
    assert (tmp_path / "b" / "f").read_text() == "x"


def test_a_source_that_is_none_is_refused(host: Host, tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        host.sync(tmp_path / "none", str(tmp_path / "b"), Deadline(30))
    assert not (tmp_path / "b").exists()


def test_a_target_that_cannot_be_made_is_an_error(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError):
        host.sync(tmp_path, str(tmp_path / "file" / "below"), Deadline(30))


def test_a_target_that_refuses_the_bytes_is_an_error(host: Host, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "f").write_text("a file where a directory shall be")
    (tmp_path / "a" / "f" / "g").write_text("x")
    host.sync(tmp_path / "a", str(tmp_path / "b"), Deadline(30))
    (tmp_path / "a" / "h").write_text("x")
    (tmp_path / "b" / "h").mkdir()
    (tmp_path / "b" / "h" / "full").write_text("a directory that is not empty where a file shall be")
    with pytest.raises(SandboxerError, match="rsync ended with 23"):
        host.sync(tmp_path / "a", str(tmp_path / "b"), Deadline(30))


def test_the_words_of_rsync() -> None:
    argv = rsync_argv(Path("/src dir"), "/to", exclude=["/.git"], rsh="carrier")
    assert argv == [
        "rsync", "-rlptHS", "-s", "--no-h", "--stats", "--info=progress2", "--outbuf=L", "--exclude=/.git",
        "-e", "carrier", "--", "/src dir/", "sbx:/to/",
    ]  # fmt: skip
    listed = rsync_argv(Path("/a"), "/b", listed=True)
    assert listed[1] == "-dlptHS"
    assert {"--files-from=-", "--from0"} < set(listed)
    assert rsync_argv(Path("/a"), "/b")[-3:] == ["--", "/a/", "/b/"]
    assert listing([".", "a\nb", "\udcff"]) == b"a\nb\0\xff\0"


@pytest.mark.parametrize("target", ["relative", "host:/path", "-x", "rsync://h/m"])
def test_a_target_that_rsync_could_misread_is_refused(target: str) -> None:
    """Promise 24: no option or command injection by paths."""
    with pytest.raises(Invalid):
        rsync_argv(Path("/a"), target)


@pytest.mark.parametrize("pattern", ["", "a\nb", "a\0b"])
def test_a_pattern_that_could_be_misread_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid):
        rsync_argv(Path("/a"), "/b", exclude=[pattern])


def test_what_rsync_says_is_read_in_any_pieces() -> None:
    text = (
        b"      1,000  10%    1.00MB/s    0:00:00\r  12,345,678 100%    1.00MB/s    0:00:00 (xfr#1, to-chk=0/3)\n"
        b"Number of regular files transferred: 7\nTotal bytes sent: 4242\n"
    )
    for size in (1, 5, len(text)):
        told: list[str] = []
        output = RsyncOutput(told.append)
        for start in range(0, len(text), size):
            output.feed(text[start : start + size])
        report = output.report()
        assert (report.files, report.sent_bytes, told) == (7, 4242, ["1.0 kB", "12.3 MB"])


def complaints(*lines: str) -> RsyncComplaints:
    """What rsync said, in small pieces."""
    said = RsyncComplaints()
    for byte in "".join(f"{line}\n" for line in lines).encode():
        said.feed(bytes([byte]))
    return said


def test_files_that_vanish_or_become_shorter_are_a_note_and_other_ends_are_errors() -> None:
    cut = 'rsync: [sender] read errors mapping "/a/f": No data available (61)'
    end = "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1394)"
    assert rsync_notes(0, complaints()) == ()
    assert rsync_notes(24, complaints()) == (GONE,)
    assert rsync_notes(23, complaints(cut, end)) == (CHANGED,)
    with pytest.raises(BackendError, match="no space"):
        rsync_notes(11, complaints("no space left"))
    with pytest.raises(BackendError, match="Permission denied"):
        rsync_notes(
            23, complaints(cut, 'rsync: [sender] send_files failed to open "/a/g": Permission denied (13)', end)
        )


def test_bytes_for_people() -> None:
    assert [format_bytes(n) for n in (0, 999, 1000, 12_345_678, 2_000_000_000)] == [
        "0 B", "999 B", "1.0 kB", "12.3 MB", "2.0 GB",
    ]  # fmt: skip


names = st.sampled_from(["a", "b", "ab", "build", "x.o", "y.c", "a.o"])
pattern = st.sampled_from(
    ["*.o", "/build", "build/", "a", "/a/b", "a/b", "**/x.o", "a*", "?", "/ab/*.c", "[ab]", "[!a]", "# no", "", "b/**"]
)


@settings(max_examples=15, deadline=None)
@given(
    files=st.lists(st.lists(names, min_size=1, max_size=4), min_size=1, max_size=10),
    rules=st.lists(pattern, max_size=4),
    inner=st.lists(pattern, max_size=2),
    exclude=st.lists(pattern.filter(lambda p: bool(p) and not p.startswith("#")), max_size=2),
)
def test_tar_leaves_out_exactly_what_rsync_would(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[str]],
    rules: list[str],
    inner: list[str],
    exclude: list[str],
) -> None:
    top = tmp_path_factory.mktemp("tree")
    source, target = top / "a", top / "b"
    source.mkdir()
    for parts in files:
        path = source.joinpath(*parts)
        if any(parent.is_file() for parent in path.parents) or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (source / ".gitignore").write_text("\n".join(rules))
    if (source / "a").is_dir():
        (source / "a" / ".gitignore").write_text("\n".join(inner))
    host = LocalHost("local", HostSettings())
    host.sync(source, str(target), Deadline(30), exclude=exclude, gitignore=True)
    copied = {str(path.relative_to(target)) for path in target.rglob("*")} | {"."}
    assert walked(source, exclude) == copied
