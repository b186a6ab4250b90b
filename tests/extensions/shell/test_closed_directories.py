"""A tree with directories that nobody may write in (or enter) is unpacked as a whole, by every tar that is met."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from sandboxer.extensions.shell import files
from sandboxer.hosts.trees.tar_writer import write_tar
from tests.extensions.shell.test_files import Inside, inside

__all__ = ["inside"]
MODES = [0o555, *([0o000, 0o600] if os.geteuid() == 0 else [])]


def closed_tree(top: Path, mode: int) -> Path:
    """A directory with that mode beside a file, which tar unpacks after the directory's header."""
    (top / "mod" / "sub").mkdir(parents=True)
    for name in ("y", "mod/z", "mod/sub/w"):
        (top / name).write_text(name)
    (top / "mod" / "sub").chmod(mode)
    (top / "mod").chmod(mode)
    return top


@pytest.mark.parametrize("mode", MODES, ids=oct)
def test_what_is_in_a_closed_directory_arrives_and_the_directory_is_closed(
    inside: Inside, tmp_path: Path, mode: int
) -> None:
    archive = io.BytesIO()
    write_tar(closed_tree(tmp_path / "r", mode), archive.write)
    archive.seek(0)
    files.put_archive(inside, "new", archive, hint="")
    made = inside.directory / "new"
    assert [oct((made / name).stat().st_mode & 0o7777) for name in ("mod", "mod/sub")] == [oct(mode)] * 2
    for closed in (made / "mod", made / "mod" / "sub"):
        closed.chmod(0o755)
    assert {name: (made / name).read_text() for name in ("y", "mod/z", "mod/sub/w")} == {
        name: name for name in ("y", "mod/z", "mod/sub/w")
    }
