"""Stop the containers of a stack, and start them again, by its own compose program and the file that was judged."""

from __future__ import annotations

from typing import Final

from sandboxer.extensions.base import Context, Status
from sandboxer.extensions.compose_ssh import argv, client, create
from sandboxer.extensions.compose_ssh.handle import ComposeHandleData, to_handle
from sandboxer.models import Ready

GRACE: Final = 10.0
"""How long containers have to end once they were asked to, in seconds."""
_REST: Final = 5.0
"""What is kept of the caller's time for the look that follows."""


def stop(sandbox: ComposeHandleData, ctx: Context) -> None:
    """Stop all containers; what is in them, and their volumes, stays."""
    left = ctx.deadline.left()
    seconds = int(GRACE if left is None else min(GRACE, max(0.0, left - _REST)))
    client.checked(ctx, argv.stop(sandbox, seconds=seconds), "stopping the stack", sandbox)


def start(sandbox: ComposeHandleData, ctx: Context) -> Ready:
    """Start them, and wait as a create does. Services that had ended run again too. Docker gives a port that it has
    chosen itself anew each time."""
    client.checked(ctx, argv.start(sandbox), "starting the stack", sandbox)
    return create.wait_ready(to_handle(sandbox), ctx)


def idle_status(sandbox: ComposeHandleData, ctx: Context) -> Status:
    """The status of a stack of which no container runs: stopped, or ended by itself."""
    if client.is_marked(sandbox, ctx):
        return Status("stopped")
    return Status("stopped", "no container runs", ended_itself=True)
