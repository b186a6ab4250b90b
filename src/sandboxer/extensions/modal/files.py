"""Copy files in and out as tar, which runs inside, so whatever an archive says, it stays there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sandboxer.extensions.modal import exec as modal_exec
from sandboxer.extensions.modal.event_loop import LoopRunner
from sandboxer.extensions.shell import files
from sandboxer.timing import Deadline


def runner(bridge: LoopRunner, find: Callable[[], Any], deadline: Deadline) -> files.Run:
    """Run our own small scripts inside the sandbox that `find` gives."""
    return partial(modal_exec.capture, bridge, find, deadline=deadline)
