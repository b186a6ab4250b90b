"""Tar streams on their way in and out of containers, and lines on their way out of logs."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final, cast

from sandboxer.errors import BackendError, Invalid

PEEKED: Final = 64 * 1024
"""How much of an archive is read to see its first entry: extended headers may stand before it."""
_SPOOLED: Final = 4 * 1024 * 1024


def first(data: bytes) -> tarfile.TarInfo | None:
    """The first entry of (the beginning of) an archive, None when there is none."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            return archive.next()
    except (tarfile.TarError, EOFError):
        return None


@contextmanager
def prefixed(archive: BinaryIO, prefix: str) -> Iterator[BinaryIO]:
    """The archive with every name below `prefix`, owned by root, without devices and the like; raises Invalid for
    names that lead elsewhere. Spooled, so that a bad archive is refused before anything is sent."""
    lead = f"{prefix}/" if prefix else ""
    with tempfile.SpooledTemporaryFile(max_size=_SPOOLED) as spool:
        target = cast("BinaryIO", spool)
        try:
            with (
                tarfile.open(fileobj=archive, mode="r|") as source,
                tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as out,
            ):
                for member in source:
                    _check(member)
                    member.name = lead + _clean(member.name) if _clean(member.name) else prefix
                    if not member.name:
                        continue
                    if member.islnk():
                        member.linkname = lead + _clean(member.linkname)
                    member.uid = member.gid = 0
                    member.uname = member.gname = ""
                    member.pax_headers = {}
                    out.addfile(member, source.extractfile(member) if member.isreg() else None)
        except (tarfile.TarError, EOFError) as error:
            raise Invalid(f"this is not a tar archive: {error}", hint="give a plain tar stream") from error
        target.seek(0)
        yield target


def _check(member: tarfile.TarInfo) -> None:
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise Invalid(f"{member.name[:200]!r} is neither file, directory nor link", hint="leave it out of the archive")
    names = [member.name, member.linkname] if member.islnk() else [member.name]
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise Invalid(
            f"{member.name[:200]!r} leads out of the archive's directory", hint="use relative names without .."
        )


def _clean(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


@contextmanager
def renamed(name: str, sink: Callable[[bytes], None]) -> Iterator[Callable[[bytes], None]]:
    """Give bytes of an archive to what this yields; `sink` gets it with `name` as its single top entry.

    Passed straight through when the top entry is called so already; spooled and renamed at the end otherwise (the path
    was a link, or the root directory, or an archive without an entry for the directory itself)."""
    feed = _Renamer(name, sink)
    try:
        yield feed.write
        feed.finish()
    finally:
        feed.close()


class _Renamer:
    def __init__(self, name: str, sink: Callable[[bytes], None]) -> None:
        self._name, self._sink = name, sink
        self._head: bytearray | None = bytearray()
        self._spool: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            entry = first(bytes(self._head)) if len(self._head) >= tarfile.BLOCKSIZE else None
            if entry is None and len(self._head) < PEEKED:
                return
            self._decide(entry)
        elif self._spool is not None:
            self._spool.write(data)
        else:
            self._sink(data)

    def _decide(self, entry: tarfile.TarInfo | None) -> None:
        head, self._head = bytes(self._head or b""), None
        if entry is not None and self._name and entry.name == self._name:
            self._sink(head)
            return
        self._spool = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_SPOOLED))  # noqa: SIM115 - closed below
        self._spool.write(head)

    def finish(self) -> None:
        if self._head is not None:
            self._decide(first(bytes(self._head)))
        if self._spool is None:
            return
        self._spool.seek(0)
        try:
            self._rewrite(self._spool)
        except (tarfile.TarError, EOFError) as error:
            raise BackendError(f"the container engine sent a broken archive: {error}", hint="try again") from error

    def _rewrite(self, spool: BinaryIO) -> None:
        top = self._name or "root"
        with (
            tarfile.open(fileobj=spool, mode="r:") as source,
            tarfile.open(fileobj=cast("BinaryIO", _Out(self._sink)), mode="w|", format=tarfile.PAX_FORMAT) as out,
        ):
            lead: str | None = None if self._name else ""
            for index, member in enumerate(source):
                if index == 0:
                    if lead is None:
                        lead = member.name.rstrip("/")
                    elif member.name.strip("/."):
                        directory = tarfile.TarInfo(top)
                        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                        out.addfile(directory)
                member.name = _moved(member.name, lead or "", top)
                if member.islnk():
                    member.linkname = _moved(member.linkname, lead or "", top)
                member.pax_headers = {}
                out.addfile(member, source.extractfile(member) if member.isreg() else None)

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()


def _moved(name: str, lead: str, top: str) -> str:
    rest = _clean(name)
    if lead:
        rest = rest.removeprefix(lead).lstrip("/")
    return f"{top}/{rest}" if rest else top


class _Out:
    """A sink as the file that tarfile writes to."""

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink

    def write(self, data: bytes) -> int:
        self._sink(bytes(data))
        return len(data)


class Prefixed:
    """Passes lines on with something before each."""

    def __init__(self, prefix: bytes, sink: Callable[[bytes], None]) -> None:
        self._prefix, self._sink, self._rest = prefix, sink, b""

    def write(self, data: bytes) -> None:
        """Whole lines go on at once; the rest waits for its end."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if lines:
            self._sink(b"".join(self._prefix + line + b"\n" for line in lines))

    def finish(self) -> None:
        """The last line, if it has no end of its own."""
        if self._rest:
            self._sink(self._prefix + self._rest + b"\n")
            self._rest = b""
