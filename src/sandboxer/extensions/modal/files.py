"""Copy files in and out as tar, which runs inside, so whatever an archive says, it stays there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from sandboxer.extensions.modal import exec as modal_exec
from sandboxer.extensions.modal.event_loop import LoopRunner
from sandboxer.extensions.shell import files
from sandboxer.hosts.base import Result, Sink
from sandboxer.timing import Deadline


def runner(bridge: LoopRunner, find: Callable[[], Any], deadline: Deadline) -> files.Run:
    """Runs our own small scripts inside the sandbox that `find` gives."""

    def run(
        words: Sequence[str],
        *,
        stdin: BinaryIO | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> Result:
        return modal_exec.capture(bridge, find, words, deadline, stdin=stdin, stdout=stdout, stderr=stderr)

    return run
