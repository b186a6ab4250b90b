"""`snapshots.json`: what is known of each snapshot; written like the store. The files are in `store/chunks`, or with a
provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from sandboxer.errors import StoreCorrupt
from sandboxer.models import Snapshot
from sandboxer.names import SNAPSHOT_ID
from sandboxer.store.codec import UNREADABLE, check_keys
from sandboxer.store.document import AtomicDocument
from sandboxer.store.group_commit import GroupCommit
from sandboxer.store.parse_cache import ParseCache
from sandboxer.store.private_files import DOCTOR

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "snapshots.json"
SCHEMA_VERSION: Final = 1

SnapshotEdit = Callable[[Snapshot | None], Snapshot | None]
"""What a snapshot becomes; None: it is not known any more. Pure: it may run twice, and on another thread."""


class _Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    schema_version: int = SCHEMA_VERSION
    install: str = ""
    revision: int = 0
    snapshots: dict[str, Snapshot] = {}


class SnapshotRecords:
    """The snapshots of one installation. May be used by any thread and process.

    Raises StoreCorrupt for a file that is unreadable, newer or another installation's (its bytes are kept), and
    Unavailable or Denied as the disk says."""

    def __init__(self, directory: Path, *, install: Callable[[], str]) -> None:
        self._document = AtomicDocument(directory / FILE)
        self._commits = GroupCommit(self._document, read=self._page, write=self._commit)
        self._install = install
        self._parsed = ParseCache(self._document, self._parse)

    @property
    def path(self) -> Path:
        """Where they are kept."""
        return self._document.path

    def all(self) -> Sequence[Snapshot]:
        """All that are known, oldest first."""
        return sorted(self._known().values(), key=lambda one: (one.created_at, one.id))

    def get(self, snapshot_id: str) -> Snapshot | None:
        """One by its full id."""
        return self._known().get(snapshot_id)

    def update(self, snapshot_id: str, edit: SnapshotEdit, *, must_succeed: bool = False) -> Snapshot | None:
        """Apply `edit` to what is known of a snapshot and make its answer durable. What `edit` raises passes through.

        `must_succeed` may use the reserve that is kept for a full disk."""
        install = self._install()  # may take the store's own lock: never inside ours

        def decide(page: _Page) -> tuple[_Page, Snapshot | None]:
            before = page.snapshots.get(snapshot_id)
            after = edit(before)
            if after == before:
                return page, after
            others = {key: one for key, one in page.snapshots.items() if key != snapshot_id}
            snapshots = others if after is None else {**others, snapshot_id: after}
            return msgspec.structs.replace(page, install=install, snapshots=snapshots), after

        return self._commits.change(decide, must_succeed=must_succeed)

    # -- the file -------------------------------------------------------------------------------------------------

    def _known(self) -> Mapping[str, Snapshot]:
        return self._page().snapshots

    def _page(self) -> _Page:
        return self._parsed.read() or _Page()

    def _parse(self, data: bytes) -> _Page:
        try:
            page = msgspec.json.decode(data, type=_Page)
            check_keys(data)
        except (*UNREADABLE, ValueError) as error:
            raise StoreCorrupt(f"{self.path} is not a list of snapshots: {error}", hint=DOCTOR) from error
        if page.schema_version != SCHEMA_VERSION:
            raise StoreCorrupt(
                f"{self.path} was written by another sandboxer (schema version {page.schema_version})", hint=DOCTOR
            )
        if page.install != self._install():
            raise StoreCorrupt(f"{self.path} belongs to another installation ({page.install!r})", hint=DOCTOR)
        if any(one.id != key or not SNAPSHOT_ID.fullmatch(key) for key, one in page.snapshots.items()):
            raise StoreCorrupt(f"{self.path} does not hold what it should: an id is wrong", hint=DOCTOR)
        return page

    def _commit(self, before: _Page, after: _Page, must_succeed: bool) -> None:
        page = msgspec.structs.replace(after, revision=before.revision + 1)
        self._parsed.replace(page, _render(page), must_succeed=must_succeed)


def _render(page: _Page) -> bytes:
    """A snapshot a line; the count of writes first, so that two versions never look alike."""
    encode = msgspec.json.encode
    head = b'{"schema_version":%d,"install":%s,"revision":%d,\n"snapshots":{' % (
        page.schema_version,
        encode(page.install),
        page.revision,
    )
    lines = b",\n".join(encode(key) + b":" + encode(one) for key, one in page.snapshots.items())
    return head + (b"\n" + lines + b"\n" if lines else b"") + b"}}\n"
