"""`cp` with the real packing and unpacking of a native sandbox."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from pathlib import Path

from sandboxer.manager.copies import copy
from tests.extensions.native.sandboxes import EXTENSION, Box


def files_of(box: Box) -> copy.SandboxFiles:
    return copy.SandboxFiles(EXTENSION, box.handle, box.bench.context(seconds=120), None)


def test_a_tree_with_a_closed_directory_goes_in_as_a_whole(box: Box, tmp_path: Path) -> None:
    (tmp_path / "r" / "mod" / "sub").mkdir(parents=True)
    for name in ("y", "mod/z", "mod/sub/w"):
        (tmp_path / "r" / name).write_text(name)
    (tmp_path / "r" / "mod").chmod(0o555)
    try:
        assert copy.copy_in(str(tmp_path / "r"), ".", files_of(box)) == copy.CopyReport()
    finally:
        (tmp_path / "r" / "mod").chmod(0o755)
    assert box.sh("cat r/y r/mod/z r/mod/sub/w; stat -c %a r/mod") == "ymod/zmod/sub/w555"


def test_holes_stay_holes_on_the_way_in(box: Box, tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(300 << 20)
        file.seek(200 << 20)
        file.write(b"here")
    assert copy.copy_in(str(tmp_path / "holes"), "in", files_of(box)) == copy.CopyReport()
    size, blocks = box.sh("stat -c '%s %b' in").split()
    assert (int(size), int(blocks) * 512 < 1 << 20) == (300 << 20, True)
    assert box.sh("tail -c +209715201 in | head -c 4") == "here"


def test_what_cannot_come_out_is_counted_and_named(box: Box, tmp_path: Path) -> None:
    box.sh(
        "mkdir -p d/closed; echo a >d/a; ln d/a d/b; mkfifo d/pipe; ln -s a d/link; echo s >d/secret; "
        "echo t >d/closed/t"
    )
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        here = os.getcwd()  # noqa: PTH109
        os.chdir(box.paths.workspace)  # the name of a socket is short
        try:
            listening.bind("d/socket")
        finally:
            os.chdir(here)
    box.sh("chmod 000 d/secret d/closed")
    done = copy.copy_out("d", str(tmp_path / "out"), files_of(box))
    box.sh("chmod 700 d/secret d/closed")
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_file()} == {"a", "b"}
    assert (tmp_path / "out" / "a").stat().st_nlink == 2
    assert (done.left_out, done.partial) == (5, True), done
    assert {one.partition(":")[0] for one in done.said} == {"d/pipe", "d/link", "d/secret", "d/closed", "d/socket"}
