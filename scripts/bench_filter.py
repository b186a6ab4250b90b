"""What the filter of system calls costs a native sandbox: the same, with it and without, in turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

from measuring import clean, seconds
from tests.installations import environment, lay_out

from sandboxer.bootstrap import Installation, install
from sandboxer.extensions.base import Exec
from sandboxer.extensions.native import NativeExtension
from sandboxer.hosts.base import Streams
from sandboxer.models import Request, Sandbox

PAIRS = 50
WARM_UP = 3


class Unfiltered(NativeExtension):
    """Native without the filter: no product has it."""

    def filter_program(self, machine: str) -> bytes:
        """None."""
        return b""


def native(root: Path, extension: Callable[[], NativeExtension]) -> Installation:
    """An installation whose ext.native is this one."""
    lay_out(root)
    here = install(environment(root), relay_in_background=False)
    here.manager.services.extensions.add("ext.native", extension)
    return here


def made(here: Installation, syscalls: str) -> Sandbox:
    """A fresh sandbox, which is what the figure says that it is."""
    box = here.manager.create(here.manager.plan(Request(profile="profile.native")))
    assert box.isolation is not None
    assert box.isolation.syscalls == syscalls, box.isolation
    return box


def filtered(root: Path) -> Iterator[tuple[str, float, float, str]]:
    """Creates in process, each of a pair taken away before the next; then `true` in one sandbox of each."""
    ours, bare = native(root / "with", NativeExtension), native(root / "without", Unfiltered)

    def create(here: Installation, syscalls: str) -> float:
        took = seconds(lambda: made(here, syscalls))
        clean(here)
        return took

    pairs = [(create(ours, "filtered"), create(bare, "unfiltered")) for _ in range(WARM_UP + PAIRS)]
    yield "native create, in process, with the filter / without", 1.10, *_middle(pairs)
    one, other = made(ours, "filtered"), made(bare, "unfiltered")

    def run(here: Installation, box: Sandbox) -> float:
        streams = Streams(stdin=None, stdout=_quiet, stderr=_quiet)
        codes: list[int] = []
        took = seconds(lambda: codes.append(here.manager.exec(box.id, Exec(argv=("true",)), streams)))
        assert codes == [0]
        return took

    pairs = [(run(ours, one), run(bare, other)) for _ in range(WARM_UP + PAIRS)]
    yield "native exec of true, with the filter / without", 1.15, *_middle(pairs)
    for here in (ours, bare):
        clean(here)
        here.close()


def _quiet(_: bytes) -> None: ...


def _middle(pairs: list[tuple[float, float]]) -> tuple[float, str]:
    """Median of the ratios without the first pairs, and the medians."""
    counted = pairs[WARM_UP:]
    first, second = (statistics.median(column) * 1000 for column in zip(*counted, strict=True))
    return statistics.median(a / b for a, b in counted), f"{first:.1f} ms / {second:.1f} ms"


PARTS = {"filter": filtered}
