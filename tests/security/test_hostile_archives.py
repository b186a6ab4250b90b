"""Finding 9, promise 27: an archive from inside is hostile, and is bounded before it is worked on."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import pytest

from sandboxer.errors import Denied, Invalid, SandboxerError
from sandboxer.hosts.trees import tar_reader
from sandboxer.hosts.trees.tar_reader import BrokenArchive, TarReader
from tests.fuzz import archives
from tests.fuzz.archives import header, padded, pax
from tests.sizes import scaled

END = bytes(1024)


def old_sparse(extents: list[tuple[int, int]], *, whole: int, stored: int, more: bytes = b"") -> bytes:
    pairs = b"".join(b"%011o\0%011o\0" % pair for pair in extents[:4]).ljust(96, b"\0")
    extra = bytes(41) + pairs + (b"\1" if more else b"\0") + b"%011o\0" % whole
    return header("top/s", kind=b"S", size=stored, magic=b"ustar  \0", more=extra) + more


def read(data: bytes) -> list[tuple[str, str, int]]:
    at = 0

    def some(size: int) -> bytes:
        nonlocal at
        at += size
        return data[at - size : at]

    reader = TarReader(some)
    found: list[tuple[str, str, int]] = []
    for member in reader.members():
        found.append((member.name, member.kind, sum(len(chunk) for _, chunk in reader.contents())))
    reader.drain()
    return found


BOMBS: dict[str, Callable[[], bytes]] = {
    "a header that is said to have 4 GiB": lambda: header("x", kind=b"x", size=4 << 30) + bytes(1 << 20),
    "a long name of 1 GiB": lambda: header("x", kind=b"L", size=1 << 30) + bytes(1 << 20),
    "headers without end": lambda: pax(("comment", "x")) * 5000 + header("top"),
    "long names without end": lambda: (header("x", kind=b"L", size=5) + padded(b"name\0")) * 5000 + header("top"),
    "a number of a million digits": lambda: pax(("size", "9" * 1_000_000)) + header("top"),
    "a record longer than its header": lambda: header("x", kind=b"x", size=12) + padded(b"999999 a=b\n\n") + END,
    "a negative size": lambda: header("top/x", size=1)[:124] + b"\xff" * 12 + header("top/x", size=1)[136:] + END,
    "a size of 8 EiB": lambda: header("top/x", size=(1 << 63) - 1) + END,
    "a file said to be of 1 PiB": lambda: old_sparse([(0, 0)], whole=1 << 50, stored=0)[:483] + END,
    "an old map without end": lambda: old_sparse(
        [(0, 1)], whole=1 << 30, stored=1, more=(b"%011o\0%011o\0" % (1, 0) * 21 + b"\1" + bytes(7)) * 9000
    ),
    "a map that climbs back": lambda: old_sparse([(1000, 100), (0, 100)], whole=2000, stored=200) + bytes(512),
    "a map beyond the size": lambda: old_sparse([(5000, 100)], whole=2000, stored=100) + bytes(512),
    "a map of more than is sent": lambda: old_sparse([(0, 1 << 30)], whole=1 << 31, stored=100) + bytes(512),
    "a map of a billion pieces": lambda: pax(("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "100"))
    + header("top/x", size=1 << 30) + padded(b"1000000000\n"),
    "a map without line ends": lambda: pax(("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "100"))
    + header("top/x", size=1 << 30) + b"1" * (1 << 20),
    "a map of odd length": lambda: pax(("GNU.sparse.size", "9"), ("GNU.sparse.map", "1,2,3")) + header("top/x", size=2),
    "a million pieces in a header": lambda: pax(("GNU.sparse.size", "9"), ("GNU.sparse.map", "1,0," * 500_000))
    + header("top/x"),
    "a wrong checksum": lambda: b"top" + header("x")[3:] + END,
    "a name that goes up": lambda: header("top") + header("top/../../x", size=1) + padded(b"x") + END,
    "a name that starts at the root": lambda: header("/etc/x", size=1) + padded(b"x") + END,
    "a name of 100 kB": lambda: pax(("path", "top/" + "x" * 100_000)) + header("top") + END,
    "a name 1000 deep": lambda: pax(("path", "top" + "/d" * 1000)) + header("top") + END,
    "a name with a NUL": lambda: pax(("path", "top/a\0b")) + header("top") + END,
    "a file where a directory is": lambda: header("top/a", size=1) + padded(b"x") + header("top/a/b") + END,
    "two tops": lambda: header("one") + header("two") + END,
    "a truncated file": lambda: header("top/x", size=5000) + b"x" * 100,
    "data behind the end": lambda: header("top/x") + END + bytes(tar_reader.MAX_TRAILING + 1),
    "3000 files": lambda: b"".join(header(f"top/{number}") for number in range(3000)) + END,
    "more bytes than allowed": lambda: header("top/x", size=2 << 20) + b"x" * (2 << 20) + END,
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_hostile_archive_is_refused(bomb: str) -> None:
    with pytest.raises(SandboxerError) as caught:
        archives.run(BOMBS[bomb]())
    assert isinstance(caught.value, Invalid | Denied) or "too long" in caught.value.message
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("kind", [b"2", b"3", b"4", b"6", b"V", b"Z"])
def test_what_is_no_file_or_directory_is_left_out(kind: bytes) -> None:
    archives.run(header("top/a", kind=kind, link="/etc/passwd") + header("top/b", size=1) + padded(b"x") + END)


def test_a_bomb_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        for name in ("headers without end", "an old map without end", "a map without line ends"):
            bomb = BOMBS[name]()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(BrokenArchive):
                read(bomb)
            assert tracemalloc.get_traced_memory()[1] - before < 24 << 20, name
    finally:
        tracemalloc.stop()


def test_the_seeds_are_archives_that_are_taken() -> None:
    for seed in archives.SEEDS[1:3]:
        assert [kind for _, kind, _ in read(seed)].count("file") == 3
    sizes = [read(seed)[-1] for seed in archives.SEEDS[3:]]
    assert sizes == [("top/s", "file", 512), ("top/x", "file", 10), ("top/old", "file", 512)]
    for seed in archives.SEEDS:
        archives.run(seed)


def test_archives_that_are_changed_at_random_raise_typed_errors_only() -> None:
    chance = random.Random(27)  # noqa: S311 - nothing secret
    refused = 0
    for _ in range(scaled(500, soak=60_000)):
        data = bytearray(chance.choice(archives.SEEDS))
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            if chance.random() < 0.2:
                del data[at : at + chance.randint(1, 700)]
            elif chance.random() < 0.2:
                data[at:at] = chance.choice(archives.SEEDS)[: chance.randint(1, 1024)]
            else:
                data[at] = chance.choice([0, 0x20, 0x2F, 0x30, 0x31, 0x37, 0x78, 0x80, 0xFF, chance.randrange(256)])
            data = data or bytearray(1)
        if chance.random() < 0.7:
            for start in range(0, len(data) - 511, 512):  # with right checksums more is read
                block = data[start : start + 512]
                if block[257:262] == b"ustar":
                    block[148:156] = b" " * 8
                    data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
        try:
            archives.run(bytes(data))
        except SandboxerError:
            refused += 1
    assert refused
