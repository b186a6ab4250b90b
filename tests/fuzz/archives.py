"""The fuzz target of archives: any bytes in, and only typed errors out; nothing is written outside the target."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path

from sandboxer.errors import SandboxerError
from sandboxer.manager.copies.destination import CopyDestination
from sandboxer.manager.copies.extract import ExtractLimits, StagingDirectory, staging_directory

LIMIT = 1 << 20
"""What one archive may take on the disk, in bytes."""


def run(data: bytes) -> None:
    """Unpack the bytes as what a sandbox sent, and look at what became of it. Raises SandboxerError at most."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "outside").write_text("outside")
        (root / "target").mkdir()
        (root / "target" / "link").symlink_to(root / "outside")
        before = sorted(root.iterdir())
        try:
            _unpack(root / "target", data)
        finally:
            assert sorted(root.iterdir()) == before
            assert (root / "outside").read_text() == "outside"
            assert not list((root / "target").glob(".sandboxer-cp-*"))
            taken = 0
            for file in (root / "target").rglob("*"):
                status = file.lstat()
                assert file.name == "link" or file.is_dir() or (file.is_file() and not file.is_symlink()), file
                assert not status.st_mode & 0o7000, file
                taken += status.st_blocks * 512
            assert taken <= LIMIT + (1 << 16), taken


def _unpack(target: Path, data: bytes) -> None:
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with staging_directory(fd, LIMIT, shown=target) as stage:
            stage.budget = ExtractLimits(LIMIT, "the test", entries=2000)
            _fill(stage, data)
            if stage.taken:
                CopyDestination(fd, None, target).settle(stage)
    except OSError as error:
        assert error.filename is None or ".." not in str(error.filename), error
        raise SandboxerError(str(error)) from error  # `cp` makes a typed error of what the disk refuses
    finally:
        os.close(fd)


def _fill(stage: StagingDirectory, data: bytes) -> None:
    stage.unpack(io.BytesIO(data).read)


def _packed(kind: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        top = tarfile.TarInfo("top")
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(top)
        for name in ("a", "d/b", "n" * 90 + "/" + "m" * 90):
            member = tarfile.TarInfo(f"top/{name}")
            member.size = 700
            tar.addfile(member, io.BytesIO(b"x" * 700))
        for name, what, target in (("l", tarfile.LNKTYPE, "top/a"), ("s", tarfile.SYMTYPE, "../outside")):
            member = tarfile.TarInfo(f"top/{name}")
            member.type, member.linkname = what, target
            tar.addfile(member)
    return out.getvalue()


def header(
    name: str, *, kind: bytes = b"0", size: int = 0, link: str = "", magic: bytes = b"ustar\x0000", more: bytes = b""
) -> bytes:
    """One header block with a right checksum; `more` is laid over it from byte 345 on."""
    block = bytearray(512)
    block[0:100] = name.encode()[:100].ljust(100, b"\0")
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    block[136:148], block[148:156] = b"00000000000\0", b" " * 8
    block[156:157], block[157:257] = kind, link.encode()[:100].ljust(100, b"\0")
    block[257:265] = magic
    block[345 : 345 + len(more)] = more
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """Contents in whole blocks."""
    return data + bytes(-len(data) % 512)


def pax(*records: tuple[str, str]) -> bytes:
    """An extended header with these records."""
    lines = b""
    for key, value in records:
        rest = f" {key}={value}\n".encode()
        length = len(rest) + 1
        while length != len(rest) + len(str(length)):
            length = len(rest) + len(str(length))
        lines += str(length).encode() + rest
    return header("pax", kind=b"x", size=len(lines)) + padded(lines)


SEEDS: list[bytes] = [
    _packed(tarfile.USTAR_FORMAT),
    _packed(tarfile.GNU_FORMAT),
    _packed(tarfile.PAX_FORMAT),
    pax(
        ("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "top/s"),
        ("GNU.sparse.realsize", "100000"),
    )
    + header("top/x", size=1024) + padded(b"1\n50000\n512\n") + b"y" * 512,
    pax(("GNU.sparse.size", "9000"), ("GNU.sparse.map", "0,5,4096,5"))
    + header("top/x", size=10) + padded(b"0123456789"),
    header(
        "top/old", kind=b"S", size=512, magic=b"ustar  \0",
        more=bytes(41) + b"%011o\0%011o\0" % (8192, 512) + bytes(72) + b"\0" + b"%011o\0" % 16384,
    )
    + b"z" * 512,
]  # fmt: skip
