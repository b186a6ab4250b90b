"""The reader of a local repository: nothing outside is opened, however it is named or linked."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxer.errors import Denied, Invalid, NotFound
from sandboxer.extensions.compose_ssh.loader import DirectoryReader, load


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "repo"
    (root / "sub").mkdir(parents=True)
    (root / "compose.yaml").write_text("services: {}")
    (root / "sub/inc.yaml").write_text("inc")
    return root


@pytest.fixture
def reader(repository: Path) -> Iterator[DirectoryReader]:
    with DirectoryReader(repository) as made:
        yield made


def test_files_are_read_beneath_the_root(reader: DirectoryReader) -> None:
    assert reader.read("compose.yaml") == b"services: {}"
    assert reader.read("sub/../sub/./inc.yaml") == b"inc"
    assert reader.exists("sub/inc.yaml")
    assert not reader.exists("sub/other.yaml")
    assert not reader.exists("sub"), "a directory is no file: virtual environments are called .env"


def test_what_is_not_there_is_not_found(reader: DirectoryReader) -> None:
    for path in ("gone", "gone/x", "compose.yaml/x"):
        with pytest.raises(NotFound):
            reader.read(path)


def test_links_inside_are_followed(repository: Path, reader: DirectoryReader) -> None:
    (repository / "link.yaml").symlink_to("sub/inc.yaml")
    (repository / "folder").symlink_to("sub")
    (repository / "sub/up.yaml").symlink_to("../compose.yaml")
    assert reader.read("link.yaml") == b"inc"
    assert reader.read("folder/inc.yaml") == b"inc"
    assert reader.read("folder/up.yaml") == b"services: {}"


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "sub/../../outside", "out"])
def test_a_link_out_of_the_repository_is_denied(repository: Path, reader: DirectoryReader, target: str) -> None:
    (repository / "out").symlink_to("..")
    (repository / "link").symlink_to(target if target != "out" else "out/outside")
    with pytest.raises(Denied):
        reader.read("link")
    with pytest.raises(Denied):
        reader.exists("link")


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "sub/../../outside", "", "a\0b"])
def test_a_path_out_of_the_repository_is_denied(reader: DirectoryReader, path: str) -> None:
    with pytest.raises(Denied):
        reader.read(path)


def test_a_file_that_leads_out_is_told_with_the_line_that_names_it(repository: Path, reader: DirectoryReader) -> None:
    (repository / "v.env").symlink_to("../outside")
    (repository / "compose.yaml").write_text("services:\n  w:\n    image: a\n    env_file: v.env\n")
    with pytest.raises(Denied, match=r"compose\.yaml, line 4: v\.env leads out"):
        load(reader, files=None, environment={}, project_name="p", directory="/srv/p")


def test_a_loop_of_links_is_invalid(repository: Path, reader: DirectoryReader) -> None:
    (repository / "a").symlink_to("b")
    (repository / "b").symlink_to("a")
    with pytest.raises(Invalid, match="loop"):
        reader.read("a")


def test_a_fifo_does_not_hold_the_reader(repository: Path, reader: DirectoryReader) -> None:
    os.mkfifo(repository / "pipe")
    with pytest.raises(Invalid, match="regular"):
        reader.read("pipe")


def test_a_directory_is_no_file_to_read(reader: DirectoryReader) -> None:
    with pytest.raises(Invalid, match="regular"):
        reader.read("sub")


def test_a_long_file_is_refused_before_it_is_in_memory(repository: Path, reader: DirectoryReader) -> None:
    with (repository / "long").open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(Invalid, match="larger"):
        reader.read("long")


def test_a_root_that_is_no_directory_is_invalid(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        DirectoryReader(tmp_path / "gone")


def test_a_link_that_is_swapped_while_it_is_read_never_leads_out(repository: Path, reader: DirectoryReader) -> None:
    (repository / "good").mkdir()
    (repository / "good/f").write_text("inside")
    (repository / "evil").symlink_to("..")
    (repository.parent / "f").write_text("secret")
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for target in ("good", "evil"):
                (repository / "new").symlink_to(target)
                (repository / "new").replace(repository / "turn")

    (repository / "turn").symlink_to("good")
    assert reader.read("turn/f") == b"inside"
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = set()
        for _ in range(2000):
            try:
                seen.add(reader.read("turn/f"))
            except (Denied, NotFound, Invalid) as error:
                seen.add(type(error).__name__.encode())
    finally:
        ended.set()
        thread.join()
    assert b"secret" not in seen


def test_no_descriptor_is_left_open(repository: Path, reader: DirectoryReader) -> None:
    (repository / "link").symlink_to("../outside")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("compose.yaml", "sub/inc.yaml", "gone", "link", "sub", "sub/../../outside"):
        with contextlib.suppress(Denied, NotFound, Invalid):
            reader.read(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
