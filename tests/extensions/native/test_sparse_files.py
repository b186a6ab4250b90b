"""Finding 9 with the real packing: holes travel as holes, and the insides of a sandbox cannot fill this disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxer.errors import Denied
from sandboxer.manager.copies import copy
from tests.extensions.native.sandboxes import EXTENSION, Box


def allocated(paths: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in paths.rglob("*"))


def test_three_gibibytes_of_holes_take_nothing_on_their_way_out(box: Box, tmp_path: Path) -> None:
    box.sh("mkdir -p d; truncate -s 3G d/holes; echo end >> d/holes; echo plain > d/plain")
    context = box.bench.context(seconds=120)
    sent = 0

    def count(data: bytes) -> None:
        nonlocal sent
        sent += len(data)

    EXTENSION.get_archive(box.handle, "d", count, context)
    assert sent < 1 << 20
    inside = copy.SandboxFiles(EXTENSION, box.handle, context, None)
    assert copy.copy_out("d", str(tmp_path / "out"), inside).left_out == 0
    assert (tmp_path / "out" / "holes").stat().st_size == (3 << 30) + 4
    assert (tmp_path / "out" / "plain").read_text() == "plain\n"
    assert allocated(tmp_path / "out") < 1 << 20


def test_what_is_over_the_cap_is_refused_while_it_comes(box: Box, tmp_path: Path) -> None:
    box.sh("mkdir -p big; head -c 20000000 /dev/urandom > big/file")
    inside = copy.SandboxFiles(EXTENSION, box.handle, box.bench.context(seconds=120), None)
    with pytest.raises(Denied, match="--max-size"):
        copy.copy_out("big", str(tmp_path / "out"), inside, max_size=1 << 20)
    assert list(tmp_path.iterdir()) == []
