"""The verbs of snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sandboxer.errors import SandboxerError
from sandboxer.manager.access import VerbSet, consumer_name
from sandboxer.manager.services import Progress, no_progress
from sandboxer.models import Snapshot
from sandboxer.timing import Deadline

if TYPE_CHECKING:
    from sandboxer.manager.snapshots.restore import Restore, RestoreRequest
    from sandboxer.manager.snapshots.take import VerifyReport


class SnapshotVerbs(VerbSet):
    """Take, restore, list, verify and delete."""

    def snapshot(
        self,
        text: str,
        *,
        name: str | None = None,
        timeout: float | None = None,
        progress: Progress = no_progress,
    ) -> Snapshot:
        """Keep a sandbox's files as they are now, also while it is in use or stopped. Raises Unsupported where its
        backend cannot, OverQuota when there is no room for one more."""
        from sandboxer.manager.snapshots.facts import check_room
        from sandboxer.manager.snapshots.take import take

        with self._changing("snapshot", text) as found:
            check_room(self.services, self.principal)
            deadline = Deadline(timeout or self.services.limits.snapshot)
            return take(self.services, found, name=name, deadline=deadline, progress=progress)

    def snapshots(self, *, sandbox: str | None = None) -> Sequence[Snapshot]:
        """The snapshots that are there, oldest first; of one sandbox (by its full id, it may be long gone)."""
        from sandboxer.manager.snapshots.facts import visible

        return [one for one in visible(self.services, self.principal) if sandbox in (None, one.sandbox_id)]

    def get_snapshot(self, text: str) -> Snapshot:
        """The snapshot that an id, a unique prefix or a name means. Raises NotFound, Conflict."""
        from sandboxer.manager.snapshots.facts import find_snapshot

        return find_snapshot(self.services, self.principal, text)

    def snapshot_document(self, snapshot: Snapshot) -> dict[str, Any]:
        """The public document of a snapshot."""
        from sandboxer.documents import snapshot_document

        return snapshot_document(snapshot)

    def restore_request(self, text: str, asked: RestoreRequest) -> Restore:
        """What to plan and create to restore the snapshot that a text means. Raises NotFound, Conflict."""
        from sandboxer.manager.snapshots.kept_streams import whole_snapshot
        from sandboxer.manager.snapshots.restore import Restore, request_of

        try:
            found = self.get_snapshot(text)
            whole = whole_snapshot(self.services, found.id)
            request = request_of(self.services, whole, asked)
            return Restore(request=request, actor=consumer_name(whole.consumer))
        except SandboxerError as error:
            self.principal.note(self.services, "restore", text, error.code)
            raise

    def verify_snapshot(self, text: str) -> VerifyReport:
        """Read all of a snapshot and prove it."""
        from sandboxer.manager.snapshots.take import verify

        with self._noted("snapshots verify", text) as known:
            known.append(self.get_snapshot(text).id)
            return verify(self.services, known[-1])

    def delete_snapshot(self, text: str, *, timeout: float | None = None, progress: Progress = no_progress) -> Snapshot:
        """Delete a snapshot. Raises Conflict while it is in use."""
        from sandboxer.manager.snapshots.ends import delete

        with self._noted("snapshots delete", text) as known:
            known.append(self.get_snapshot(text).id)
            deadline = Deadline(timeout or self.services.limits.destroy)
            return delete(self.services, known[-1], deadline, progress)
