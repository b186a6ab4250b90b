"""Stopping, starting, and snapshots: files stay, and nothing is left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest

from sandboxer.errors import Conflict
from sandboxer.extensions.base import CanExec, CanSnapshot, CanStop
from sandboxer.hosts.base import Host
from sandboxer.models import Handle
from sandboxer.names import LABEL_ID, new_id
from sandboxer.testing.conformance.bench import Bench, Conformance, Made, StreamsInMemory, make, remove

_KEEP = ("sh", "-c", "mkdir -p kept && printf 'of the first' > kept/file && chmod 640 kept/file")
_LOOK = ("sh", "-c", "cat kept/file && stat -c ' %a' kept/file")


class SnapshotConformance(Conformance):
    """What a backend keeps when nothing runs."""

    @pytest.fixture
    def own(self, bench: Bench, host: Host) -> Iterator[Made]:
        """A sandbox of the test's own, which it may stop."""
        sandbox = make(bench, host)
        yield sandbox
        remove(bench, host, sandbox.sandbox_id)

    def test_a_stopped_sandbox_is_stopped_and_keeps_its_files(self, own: Made) -> None:
        bench, extension = own.bench, own.bench.extension()
        if not isinstance(extension, CanStop):
            pytest.skip("has no stop")
        assert own.run(*_KEEP)[0] == 0
        extension.stop(own.handle, bench.context(own.host))
        assert extension.status(own.handle, bench.context(own.host)).presence == "stopped"
        extension.stop(own.handle, bench.context(own.host))
        if isinstance(extension, CanExec):
            with pytest.raises(Conflict) as caught:
                own.run("true")
            assert (caught.value.details or {}).get("presence") == "stopped", "what the core tells it by"
            assert extension.status(own.handle, bench.context(own.host)).is_stopped, "a command starts nothing"
        assert own.sandbox_id in {found.sandbox_id for found in extension.inventory(bench.context(own.host))}
        assert extension.find(own.sandbox_id, bench.context(own.host)) is not None
        until = float(int(time.time()) + 1800)
        extension.start(own.handle, until, bench.context(own.host))
        assert extension.status(own.handle, bench.context(own.host)).presence == "running"
        extension.start(own.handle, until, bench.context(own.host))
        assert own.run(*_LOOK)[:2] == (0, b"of the first 640\n")

    def test_a_stopped_sandbox_can_be_torn_down(self, bench: Bench, host: Host) -> None:
        extension = bench.extension()
        if not isinstance(extension, CanStop):
            pytest.skip("has no stop")
        before = set(bench.census())
        sandbox = make(bench, host)
        extension.stop(sandbox.handle, bench.context(host))
        extension.teardown(sandbox.handle, bench.context(host))
        assert extension.status(sandbox.handle, bench.context(host)).presence == "absent"
        assert set(bench.census()) <= before

    def test_a_snapshot_outlives_its_sandbox_and_makes_new_ones(self, bench: Bench, host: Host) -> None:
        extension = bench.extension()
        if not isinstance(extension, CanSnapshot):
            pytest.skip("has no snapshot")
        before = set(bench.census())
        first = make(bench, host)
        assert first.run(*_KEEP)[0] == 0
        streams = StreamsInMemory()
        kept = extension.snapshot(first.handle, f"snap-{new_id()}", bench.context(host, kept=streams))
        snapshot = msgspec.json.decode(msgspec.json.encode(kept), type=Handle)
        assert first.run("sh", "-c", "printf later > kept/file")[0] == 0
        assert extension.status(first.handle, bench.context(host)).presence == "running"
        extension.teardown(first.handle, bench.context(host))
        if bench.counts_snapshots and not streams.streams:
            assert set(bench.census()) - before, "the snapshot is still there"
        assert streams.said == [], "nobody worked in it"
        other = new_id()
        saved: list[Handle] = []
        handle = bench.extension().restore_from_snapshot(  # type: ignore[attr-defined]  # looked at above
            bench.spec(other), snapshot, bench.context(host, save=saved.append, kept=streams)
        )
        assert saved, "the handle is saved as soon as there is something to remember"
        ready = extension.wait_ready(handle, bench.context(host))
        second = Made(bench=bench, host=host, sandbox_id=other, handle=handle, ready=ready)
        try:
            assert second.run(*_LOOK)[:2] == (0, b"of the first 640\n")
            mine = [found for found in extension.inventory(bench.context(host)) if found.sandbox_id == other]
            assert [found.labels[LABEL_ID] for found in mine] == [other]
        finally:
            remove(bench, host, other)
        extension.delete_snapshot(snapshot, bench.context(host))
        extension.delete_snapshot(snapshot, bench.context(host))
        assert set(bench.census()) <= before

    def test_a_snapshot_whose_answer_was_lost_is_found_by_its_name(self, bench: Bench, host: Host) -> None:
        extension = bench.extension()
        if not isinstance(extension, CanSnapshot) or type(extension).find_snapshot is CanSnapshot.find_snapshot:
            pytest.skip("finds no snapshot by its name")
        before = set(bench.census())
        name, sandbox = f"snap-{new_id()}", make(bench, host)
        try:
            assert extension.find_snapshot(name, bench.context(host)) is None
            extension.snapshot(sandbox.handle, name, bench.context(host, kept=StreamsInMemory()))
            found = extension.find_snapshot(name, bench.context(host))
            assert found is not None
            extension.delete_snapshot(found, bench.context(host))
            assert extension.find_snapshot(name, bench.context(host)) is None
        finally:
            remove(bench, host, sandbox.sandbox_id)
        assert set(bench.census()) <= before
