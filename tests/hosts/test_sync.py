"""Trees arrive as they are, by rsync and by tar, here and over SSH."""

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxer.errors import BackendError, Invalid, SandboxerError
from sandboxer.hosts.base import Host
from sandboxer.hosts.local import LocalHost
from sandboxer.hosts.trees import beneath, sync
from sandboxer.hosts.trees.rsync import RsyncOutput, format_bytes, rsync_argv, rsync_notes
from sandboxer.hosts.trees.walk import TreeWalk
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline

Way = Callable[..., object]


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


def by_tar(host: Host, source: Path, target: str, deadline: Deadline, **options: object) -> object:
    """The way for hosts without rsync, whatever this one has."""
    assert host.run(["mkdir", "-p", target], deadline).code == 0
    given = {"exclude": (), "gitignore": False, "progress": None, **options}
    return sync.sync_tar(host, source, target, deadline, where="here", **given)  # type: ignore[arg-type]


def by_rsync(host: Host, source: Path, target: str, deadline: Deadline, **options: object) -> object:
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


def test_hard_links_arrive_as_files_by_tar(host: Host, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_text("x")
    (tmp_path / "a" / "two").hardlink_to(tmp_path / "a" / "one")
    by_tar(host, tmp_path / "a", str(tmp_path / "b"), Deadline(60))
    assert [(tmp_path / "b" / name).read_text() for name in ("one", "two")] == ["x", "x"]


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
        "rsync", "-rlpt", "-s", "--no-h", "--stats", "--info=progress2", "--outbuf=L", "--exclude=/.git",
        "-e", "carrier", "--", "/src dir/", "sbx:/to/",
    ]  # fmt: skip
    listed = rsync_argv(Path("/a"), "/b", listed=True)
    assert listed[1] == "-dlpt"
    assert {"--files-from=-", "--from0"} < set(listed)
    assert rsync_argv(Path("/a"), "/b")[-3:] == ["--", "/a/", "/b/"]


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


def test_files_that_vanish_are_a_note_and_other_ends_are_errors() -> None:
    assert rsync_notes(0, "") == ()
    assert "went away" in rsync_notes(24, "")[0]
    with pytest.raises(BackendError, match="no space"):
        rsync_notes(11, "no space left")


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
