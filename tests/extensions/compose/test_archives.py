"""What an engine sends under another name is renamed while it comes: nothing is kept, whatever the container sends."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import pytest

from sandboxer.errors import BackendError, Denied
from sandboxer.extensions.compose_ssh.archives import first_member, renamed
from tests.fuzz.archives import SEEDS, header, padded, pax
from tests.security.test_hostile_archives import BOMBS

END = bytes(1024)


def through(name: str, data: bytes, *, step: int = 5000) -> bytes:
    out = bytearray()
    with renamed(name, out.extend) as feed:
        for at in range(0, len(data), step):
            feed(data[at : at + step])
    return bytes(out)


@pytest.mark.parametrize("step", [100, 5000, 1 << 20])
def test_the_entries_arrive_under_the_new_name(step: int) -> None:
    with tarfile.open(fileobj=io.BytesIO(through("new", SEEDS[2], step=step))) as tar:
        found = {entry.name: entry for entry in tar}
        assert {"new", "new/a", "new/d/b", "new/l", "new/s"} < set(found)
        assert found["new/l"].linkname == "new/a"
        assert (found["new/s"].issym(), found["new/s"].linkname) == (True, "../outside")
        content = tar.extractfile("new/d/b")
        assert content is not None
        assert content.read() == b"x" * 700


def test_a_file_of_many_holes_arrives_whole() -> None:
    pieces = 5000
    numbers = ",".join(f"{3 * number},1" for number in range(pieces))
    data = pax(("GNU.sparse.size", "20000"), ("GNU.sparse.map", numbers)) + header("old", size=pieces)
    with tarfile.open(fileobj=io.BytesIO(through("new", data + padded(b"y" * pieces) + END))) as tar:
        content = tar.extractfile("new")
        assert content is not None
        assert content.read() == (b"y\0\0" * pieces).ljust(20_000, b"\0")


@pytest.mark.parametrize(
    "bomb", ["headers without end", "a header that is said to have 4 GiB", "a map that climbs back", "a truncated file"]
)
def test_a_hostile_archive_is_an_error_of_the_backend(bomb: str) -> None:
    with pytest.raises(BackendError, match="broken archive"):
        through("other", header("link") + BOMBS[bomb]())


def test_an_end_without_an_end_is_no_first_entry() -> None:
    assert first_member(BOMBS["headers without end"]()) is None
    assert first_member(b"") is None
    assert first_member(b"\1" * 1024) is None


def test_nothing_is_spooled_and_a_reader_that_has_enough_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    taken = 0

    def little(data: bytes) -> None:
        nonlocal taken
        taken += len(data)
        if taken > 1 << 20:
            raise Denied("enough")

    sent = 0

    def pump() -> None:
        nonlocal sent
        with renamed("new", little) as feed:
            feed(header("old", size=1 << 40))
            while sent < 1 << 30:
                feed(bytes(1 << 16))
                sent += 1 << 16

    with pytest.raises(Denied, match="enough"):
        pump()
    assert sent < 64 << 20
