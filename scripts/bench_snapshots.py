"""The figures of snapshots, on native (scripts/bench): 5,000 files and one of 500 MB; SANDBOXER_BENCH_MIB for less."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from bench_snapshot_stores import change, make
from measuring import clean, seconds
from tests.installations import environment, lay_out

from sandboxer.bootstrap import Installation, install
from sandboxer.manager.snapshots.restore import RestoreRequest
from sandboxer.models import Request, Sandbox, Snapshot

T = TypeVar("T")
Figures = Iterator[tuple[str, float, float, str]]
ROUNDS: Final = 3
FORKS: Final = 10
PAGES: Final = 640


def snapshots(root: Path) -> Figures:
    """A second snapshot after a small change over `tar` and `zstd`; a restore over `tar`; ten at once over one."""
    mib = int(os.environ.get("SANDBOXER_BENCH_MIB", "1000"))
    tree = root / "tree"
    count = make(tree, mib)
    lay_out(root)
    here = install(environment(root), relay_in_background=False)
    box = here.manager.create(here.manager.plan(Request(profile="profile.native", inputs={"repo": str(tree)})))
    shutil.rmtree(tree)
    work = _workspace(box)
    first, took = _timed(lambda: here.manager.snapshot(box.id))
    shares, ratios, spent = [], [], []
    for _ in range(ROUNDS):
        change(work, count, mib)
        plain = seconds(lambda: _packed(work, root / "plain.tar.zst"))
        second, ours = _timed(lambda: here.manager.snapshot(box.id))
        shares.append(_added(second) / _added(first))
        ratios.append(ours / plain)
        spent.append(f"{ours:.2f} s / {plain:.2f} s")
    text = f"{_added(first) >> 20} MiB in {took:.2f} s"
    yield f"second snapshot of {mib} MiB, bytes / first", 0.03, statistics.median(shares), text
    yield "second snapshot / tar and zstd -3 -T0", 1.3, statistics.median(ratios), spent[-1]
    _scatter(work / "large")
    scattered = here.manager.snapshot(box.id)
    yield f"{PAGES} scattered pages, bytes / first", float("inf"), _added(scattered) / _added(first), "reported"
    yield from _restores(here, root, scattered, work)
    clean(here)


def _restores(here: Installation, root: Path, snapshot: Snapshot, work: Path) -> Figures:
    packed, target = root / "plain.tar", root / "unpacked"
    subprocess.run(["tar", "-C", work, "-cf", packed, "."], check=True)
    ratios, spent, alone = [], "", []
    for _ in range(ROUNDS):
        target.mkdir()
        plain = seconds(lambda: subprocess.run(["tar", "-C", target, "-xf", packed], check=True))
        shutil.rmtree(target)
        made, ours = _timed(lambda: _restored(here, snapshot))
        here.manager.destroy(made.id)
        ratios.append(ours / plain)
        alone.append(ours)
        spent = f"{ours:.2f} s / {plain:.2f} s"
    yield "restore / tar", 2, statistics.median(ratios), spent

    def together() -> None:
        with ThreadPoolExecutor(FORKS) as pool:
            list(pool.map(lambda _: _restored(here, snapshot), range(FORKS)))

    at_once = seconds(together)
    one = statistics.median(alone)
    yield f"{FORKS} restores at once / one", 4, at_once / one, f"{at_once:.2f} s / {one:.2f} s"


def _restored(here: Installation, snapshot: Snapshot) -> Sandbox:
    found = here.manager.restore_request(snapshot.id, RestoreRequest())
    return here.manager.create(here.manager.plan(found.request))


def _timed(act: Callable[[], T]) -> tuple[T, float]:
    made: list[T] = []
    took = seconds(lambda: made.append(act()))
    return made[0], took


def _added(snapshot: Snapshot) -> int:
    return snapshot.stored_bytes or 0


def _workspace(box: Sandbox) -> Path:
    where = box.reachability.remote_dir if box.reachability is not None else None
    if where is None:
        raise SystemExit("the sandbox does not tell where its workspace is")
    return Path(where)


def _packed(work: Path, target: Path) -> None:
    """What one would do by hand."""
    with (
        target.open("wb") as file,
        subprocess.Popen(["tar", "-C", work, "-cf", "-", "."], stdout=subprocess.PIPE) as tar,
    ):
        subprocess.run(["zstd", "-q", "-3", "-T0"], stdin=tar.stdout, stdout=file, check=True)


def _scatter(large: Path) -> None:
    """Write pages over, as a database does."""
    rng = random.Random(3)  # noqa: S311 - data, no secret
    pages = large.stat().st_size >> 13
    with large.open("r+b") as file:
        for page in rng.sample(range(pages), min(PAGES, pages)):
            file.seek(page << 13)
            file.write(rng.randbytes(8192))


PARTS = {"snapshots": snapshots}
