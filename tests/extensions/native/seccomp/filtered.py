"""A place inside a native sandbox where programs run under the filter."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

from sandboxer.extensions.native.seccomp import program
from tests.extensions.native.sandboxes import EXTENSION, Box
from tests.testbed.syscall_filter import LOADER

MACHINE = os.uname().machine


class Desk:
    """A sandbox whose programs run under the filter, loaded by whoever starts them where the sandbox does not."""

    def __init__(self, box: Box) -> None:
        assert box.ready is not None
        self.box = box
        ours = box.ready.isolation.syscalls == "filtered"
        self._before = () if ours else ("python3", "-c", LOADER, program(MACHINE).hex())

    def run(self, *argv: str, stdin: bytes = b"") -> str:
        """What a program says, on both streams; it must succeed."""
        code, out, err = self.box.run(*self._before, *argv, stdin=stdin, seconds=150)
        assert code == 0, (argv, code, out[-2000:], err[-2000:])
        return (out + err).decode()

    def sh(self, script: str) -> str:
        """The same of a shell script."""
        return self.run("sh", "-ec", script)

    def write(self, name: str, text: str | bytes) -> None:
        """A file of the workspace."""
        data = text.encode() if isinstance(text, str) else text
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._unpack(lambda tar: tar.addfile(member, io.BytesIO(data)))

    def copy(self, tree: Path) -> None:
        """A directory, without what Python compiled there."""
        self._unpack(
            lambda tar: tar.add(tree, tree.name, filter=lambda each: None if "__pycache__" in each.name else each)
        )

    def _unpack(self, fill: Callable[[tarfile.TarFile], None]) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            fill(tar)
        packed.seek(0)
        EXTENSION.put_archive(self.box.handle, "/workspace", packed, self.box.bench.context())
