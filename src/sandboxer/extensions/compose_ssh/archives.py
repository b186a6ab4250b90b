"""Rewrite tar streams on their way in and out of containers."""

from __future__ import annotations

import io
import os
import re
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO, Final, cast

from sandboxer.errors import BackendError, Invalid
from sandboxer.extensions.base import LeftOut
from sandboxer.hosts.trees.tar_reader import BrokenArchive, Kind, TarReader

PEEKED: Final = 64 * 1024
"""How much of an archive is read to see its first entry: extended headers may stand before it."""
_SKIPPING: Final = re.compile(rb'skipping socket \\?"(.*?)\\?"')
_TOLD: Final = 20
_TYPES: Final[Mapping[Kind, bytes]] = {
    "directory": tarfile.DIRTYPE,
    "link": tarfile.LNKTYPE,
    "symlink": tarfile.SYMTYPE,
    "device": tarfile.CHRTYPE,
    "pipe": tarfile.FIFOTYPE,
    "other": tarfile.FIFOTYPE,  # as good as any that is left out
}
_SPOOLED: Final = 4 * 1024 * 1024


def first_member(data: bytes) -> tarfile.TarInfo | None:
    """The first entry of (the beginning of) an archive, its name and whether it is a directory; None when there is
    none."""
    try:
        member = next(TarReader(io.BytesIO(data).read).members(), None)
    except BrokenArchive:
        return None
    if member is None:
        return None
    entry = tarfile.TarInfo(member.name.rstrip("/"))
    entry.type = tarfile.DIRTYPE if member.kind == "directory" else tarfile.REGTYPE
    if member.kind == "symlink":
        entry.type, entry.linkname = tarfile.SYMTYPE, member.linkname
    return entry


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

    Passed straight through when the top entry is called so already; renamed on the way otherwise (the path was a link,
    or the root directory, or an archive without an entry for the directory itself)."""
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
        self._pump: _Pump | None = None

    def write(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            entry = first_member(bytes(self._head)) if len(self._head) >= tarfile.BLOCKSIZE else None
            if entry is None and len(self._head) < PEEKED:
                return
            self._decide(entry)
        elif self._pump is not None:
            self._pump.feed(data)
        else:
            self._sink(data)

    def _decide(self, entry: tarfile.TarInfo | None) -> None:
        head, self._head = bytes(self._head or b""), None
        if entry is not None and self._name and entry.name == self._name:
            self._sink(head)
            return
        self._pump = _Pump(self._name, self._sink)
        self._pump.feed(head)

    def finish(self) -> None:
        if self._head is not None:
            self._decide(first_member(bytes(self._head)))
        if self._pump is not None:
            self._pump.finish()

    def close(self) -> None:
        if self._pump is not None:
            self._pump.end()


class _Pump:
    """Rewrites an archive while it comes: what feeds it and what reads it are two threads, and nothing is kept."""

    def __init__(self, name: str, sink: Callable[[bytes], None]) -> None:
        reading, self._writing = os.pipe2(os.O_CLOEXEC)
        self._failed: list[BaseException] = []
        self._open = True

        def work() -> None:
            try:
                with open(reading, "rb", buffering=0) as pipe:
                    _rewrite(TarReader(lambda size: pipe.read(size) or b""), name, sink)
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that feeds
                self._failed.append(error)

        self._thread = threading.Thread(target=work, name="sandboxer-rename", daemon=True)
        self._thread.start()

    def feed(self, data: bytes) -> None:
        """The next bytes. Raises what the rewriting came to, when it has ended."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._writing, view) :]
        except BrokenPipeError:
            self.finish()

    def finish(self) -> None:
        """There is no more; returns when all was passed on."""
        self.end()
        if not self._failed:
            return
        if isinstance(self._failed[0], BrokenArchive):
            message = f"the container engine sent a broken archive: {self._failed[0]}"
            raise BackendError(message, hint="try again") from self._failed[0]
        raise self._failed[0]

    def end(self) -> None:
        """End it, whatever became of it."""
        if self._open:
            self._open = False
            os.close(self._writing)
        self._thread.join()


def _rewrite(source: TarReader, name: str, sink: Callable[[bytes], None]) -> None:
    top = name or "root"
    with tarfile.open(fileobj=cast("BinaryIO", _Out(sink)), mode="w|", format=tarfile.PAX_FORMAT) as out:
        lead: str | None = None if name else ""
        for index, member in enumerate(source.members()):
            if index == 0:
                if lead is None:
                    lead = member.name.rstrip("/")
                elif member.name.strip("/."):
                    directory = tarfile.TarInfo(top)
                    directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                    out.addfile(directory)
            entry = tarfile.TarInfo(_moved(member.name, lead or "", top))
            entry.mode, entry.linkname = member.mode, member.linkname
            if member.kind == "file":
                entry.size, entry.linkname = member.size, ""
                out.addfile(entry, cast("BinaryIO", _Whole(source, member.size)))
                continue
            entry.type = _TYPES[member.kind]
            if member.kind == "link":
                entry.linkname = _moved(member.linkname, lead or "", top)
            out.addfile(entry)
        source.drain()


class _Whole:
    """A file's contents for tarfile, its holes as zeros."""

    def __init__(self, source: TarReader, size: int) -> None:
        self._pieces, self._at, self._size = source.contents(), 0, size
        self._next: tuple[int, bytes] | None = next(self._pieces, None)

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only at the end."""
        data = bytearray()
        while len(data) < size and self._at < self._size:
            some = self._some(size - len(data))
            data += some
            self._at += len(some)
        return bytes(data)

    def _some(self, size: int) -> bytes:
        until = self._next[0] if self._next is not None else self._size
        if self._next is None or self._at < until:
            return bytes(min(size, until - self._at))
        offset, piece = self._next
        rest = piece[size:]
        self._next = (offset + size, rest) if rest else next(self._pieces, None)
        return piece[:size]


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


class Skipped:
    """The sockets of a directory, which no archive can hold: by podman's warnings, or as the container lists them."""

    def __init__(self) -> None:
        self._count = 0
        self._said: list[str] = []
        self._rest = b""

    def warned(self, data: bytes) -> None:
        """A sink for what podman complains of."""
        for line in self._parts(data, b"\n"):
            found = _SKIPPING.search(line)
            if found is not None:
                self._add(found[1])

    def listed(self, data: bytes) -> None:
        """A sink for names, each with a NUL behind it."""
        for name in self._parts(data, b"\0"):
            self._add(name)

    @property
    def left_out(self) -> LeftOut | None:
        """How many there were."""
        return LeftOut(count=self._count, said=tuple(self._said)) if self._count else None

    def _parts(self, data: bytes, end: bytes) -> list[bytes]:
        *parts, self._rest = (self._rest + data).split(end)
        self._rest = self._rest[-PEEKED:]
        return parts

    def _add(self, name: bytes) -> None:
        self._count += 1
        if len(self._said) < _TOLD:
            self._said.append(f"{os.fsdecode(name)[-500:]}: a socket")
