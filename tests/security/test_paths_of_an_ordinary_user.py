"""Findings 3, 9 and 11 once more, as an ordinary user: in a child that has given root up."""

from __future__ import annotations

import ctypes
import grp  # noqa: F401 - what the child needs of Python is imported before it may not reach it any more
import os
import pwd  # noqa: F401
import shutil
import signal
import tarfile  # noqa: F401
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandboxer.bootstrap import Installation
from sandboxer.errors import Denied, Invalid
from sandboxer.hosts import local  # noqa: F401
from sandboxer.hosts.local import LocalHost
from sandboxer.hosts.process import session  # noqa: F401
from sandboxer.hosts.trees import rsync_bridge, strict_modes, sync, walk  # noqa: F401
from sandboxer.manager.copies import copy
from sandboxer.manager.establish.inputs import opened_inputs
from sandboxer.models import HostSettings, Profile
from sandboxer.timing import Deadline
from tests.installations import installed
from tests.manager.test_copy import Sender, inside, packed
from tests.security.test_hostile_archives import BOMBS
from tests.testbed.components import need

USER = 48_221
_DUMPABLE = 4
_LIBC = ctypes.CDLL(None)


def as_user(check: Callable[[], None]) -> None:
    """Run a check in a child of that user; raises what it complained of."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            signal.alarm(300)
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)
            _LIBC.prctl(_DUMPABLE, 1, 0, 0, 0)  # as every program is that such a user starts
            check()
        except BaseException:  # noqa: BLE001 - told to the parent
            os.write(writing, traceback.format_exc().encode()[-60_000:])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    assert said == b"", said.decode()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of that user's, reachable for them."""
    need("root")
    top = Path(tempfile.mkdtemp())
    try:
        os.chown(top, USER, USER)
        yield top
    finally:
        shutil.rmtree(top)


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    here: Installation = installed(tmp_path)
    return here.manager.profile("profile.native")


@pytest.mark.parametrize("allowed", [True, False], ids=["over HTTP", "on the command line"])
def test_a_tree_that_is_swapped_is_the_one_that_was_judged(place: Path, profile: Profile, *, allowed: bool) -> None:
    def check() -> None:
        tree, outside = place / "root" / "tree", place / "outside"
        for made, text in ((tree, "inside"), (outside, "outside")):
            made.mkdir(parents=True)
            (made / "whose").write_text(text)
        host = LocalHost("local", HostSettings())
        with opened_inputs(profile, {"repo": str(tree)}, [str(place / "root")] if allowed else None) as inputs:
            tree.rename(place / "aside")
            tree.symlink_to(outside)
            host.sync(Path(inputs.values["repo"]), str(place / "copy"), Deadline(120))
        assert (place / "copy" / "whose").read_text() == "inside"
        with pytest.raises(Denied), opened_inputs(profile, {"repo": str(tree)}, [str(place / "root")]):
            pass

    as_user(check)


def test_a_copy_out_is_bounded_and_under_the_umask(place: Path) -> None:
    archive = packed({}, a=os.urandom(100_000))

    def check() -> None:
        os.umask(0o027)
        assert copy.copy_out("x", str(place / "out"), inside(Sender(archive))).left_out == 0
        status = (place / "out" / "a").stat()
        assert (status.st_uid, oct(status.st_mode & 0o7777)) == (USER, "0o640")
        before = sorted(place.iterdir())
        with pytest.raises(Denied):
            copy.copy_out("x", str(place / "more" / "out"), inside(Sender(archive)), max_size=50_000)
        for name in ("a name that goes up", "headers without end", "a file where a directory is", "two tops"):
            with pytest.raises(Invalid):
                copy.copy_out("x", str(place / "bad"), inside(Sender(BOMBS[name]())))
        assert sorted(place.iterdir()) == before

    as_user(check)


def test_a_work_directory_that_a_third_may_write_is_refused(place: Path) -> None:
    def check() -> None:
        host = LocalHost("local", HostSettings())
        (place / "mine").mkdir()
        host.check_place(str(place / "mine" / "work"), Deadline(60))
        host.check_place("/usr/share", Deadline(60))
        (place / "open").mkdir()
        (place / "open").chmod(0o777)
        with pytest.raises(Denied, match="everybody"):
            host.check_place(str(place / "open" / "work"), Deadline(60))

    as_user(check)
