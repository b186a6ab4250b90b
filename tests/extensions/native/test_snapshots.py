"""A native workspace goes to the core as a stream, and comes back as it was in another sandbox."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from sandboxer.errors import StoreCorrupt, Unsupported
from sandboxer.models import Handle
from sandboxer.names import new_id
from sandboxer.testing.conformance.bench import StreamsInMemory
from tests.extensions.native.sandboxes import EXTENSION, Bench, Box

MAKE = """
umask 022
mkdir -p deep/er empty closed && printf contents > deep/er/file && chmod 4751 deep/er/file
ln deep/er/file 'hard link' && ln -s deep/er/file soft && ln -s /nowhere dangling
printf x > "$(printf 'odd\\nname\\377 \\\\ -rf')" && : > '-n'
truncate -s 64M holes && printf end >> holes
touch -d 2001-02-03T04:05:06.789012345 deep/er/file && printf secret > closed/in && chmod 500 closed && mkfifo pipe
"""
LIST = (
    "find . -mindepth 1 ! -type d -printf '%P %y %m %n %s %T@ %l\\n' -o -mindepth 1 -printf '%P %y %m %l\\n' "
    "| LC_ALL=C sort | cat -v"
)
SUMS = "find . -type f -exec md5sum {} + | LC_ALL=C sort | cat -v; du -k holes | cut -f1"


@contextmanager
def restored(bench: Bench, handle: Handle, streams: StreamsInMemory, *, repo: Path | None = None) -> Iterator[Box]:
    name = new_id()
    context = msgspec.structs.replace(bench.context(), kept=streams)
    try:
        made = EXTENSION.restore_from_snapshot(bench.spec(name, repo=repo), handle, context)
        yield Box(bench, name, made, EXTENSION.wait_ready(made, bench.context()))
    finally:
        bench.remove(name)


def snapshot(box: Box) -> tuple[Handle, StreamsInMemory]:
    streams = StreamsInMemory()
    context = msgspec.structs.replace(box.bench.context(), kept=streams)
    return EXTENSION.snapshot(box.handle, "snap-aaaaaaaaaaaa", context), streams


def test_names_links_holes_modes_and_times_come_back(bench: Bench) -> None:
    with bench.box() as first:
        first.sh(MAKE)
        listed, sums = first.sh(LIST), first.sh(SUMS)
        handle, streams = snapshot(first)
    assert streams.said == []
    assert len(streams.streams["workspace"]) < 1 << 20, "holes are not sent"
    with restored(bench, handle, streams) as second:
        assert second.sh(LIST) == listed
        assert second.sh(SUMS) == sums
        assert second.sh("echo more >> 'hard link'; tail -c 5 deep/er/file") == "more"


def test_two_snapshots_of_the_same_are_the_same_bytes(bench: Bench) -> None:
    with bench.box() as box:
        box.sh(MAKE + "rm holes\n")  # GNU's tar writes its process id beside a file with holes
        first = snapshot(box)[1].streams
        box.sh("cat deep/er/file >/dev/null; find . >/dev/null")
        assert snapshot(box)[1].streams == first


def test_a_restored_one_snapshots_to_nearly_the_same_bytes(bench: Bench) -> None:
    """Forks share what they have: the order is that of names, not of directories."""
    with bench.box() as first:
        first.sh("for n in $(seq 300); do echo $n > f$n; done")
        handle, streams = snapshot(first)
    with restored(bench, handle, streams) as second:
        again = snapshot(second)[1].streams["workspace"]
    # owners differ where root gives each sandbox a uid of its own
    assert [again[at] for at in range(0, len(again), 512)] == [
        streams.streams["workspace"][at] for at in range(0, len(again), 512)
    ]


def test_the_input_tree_is_not_brought_again(bench: Bench, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "given").write_text("of the request")
    with bench.box(repo=repo) as first:
        first.sh("rm given && echo kept > own")
        handle, streams = snapshot(first)
    with restored(bench, handle, streams, repo=repo) as second:
        assert second.sh("ls") == "own"


def test_a_sandbox_in_which_something_runs_is_said_to_be_inconsistent(bench: Bench) -> None:
    with bench.box() as box:
        box.sh("(exec sleep 1000) >/dev/null 2>&1 &")
        assert snapshot(box)[1].said == ["processes ran in it meanwhile"]


def test_what_could_not_be_read_is_told(bench: Bench) -> None:
    with bench.box() as box:
        box.sh("printf x > unreadable && chmod 0 unreadable && printf y > readable")
        (said,) = snapshot(box)[1].said
        assert said.startswith("left out 1: ./unreadable"), said


def test_services_are_refused_before_anything_is_made(bench: Bench) -> None:
    with bench.box() as box:
        handle, streams = snapshot(box)
    name = new_id()
    spec = bench.spec(name, services={"web": {"command": ["sleep", "1000"]}})
    with pytest.raises(Unsupported, match="services"):
        EXTENSION.restore_from_snapshot(spec, handle, msgspec.structs.replace(bench.context(), kept=streams))
    assert bench.census(name) == []


class Damaged(StreamsInMemory):
    """Finds out after the first bytes that the rest is not what was kept."""

    def get(self, name: str) -> io.BufferedReader:
        data = self.streams[name]

        class Cut(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, into: memoryview) -> int:  # type: ignore[override]  # always that
                nonlocal data
                if not data:
                    raise StoreCorrupt("a chunk is damaged")
                count = min(len(into), 512, len(data))
                into[:count], data = data[:count], b""
                return count

        return io.BufferedReader(Cut())


def test_damage_found_on_the_way_ends_the_restore(bench: Bench) -> None:
    with bench.box() as box:
        box.sh("head -c 1000000 /dev/urandom > file")
        handle, streams = snapshot(box)
    damaged = Damaged()
    damaged.streams = streams.streams
    with pytest.raises(StoreCorrupt), restored(bench, handle, damaged):
        pass
