"""Servers that speak Modal's protocol and lack some of its newer calls."""

from __future__ import annotations

import pytest

from sandboxer.errors import BackendError
from sandboxer.extensions.modal import ModalExtension
from tests.extensions.modal.harness import context, made, run
from tests.fakes import Fault
from tests.fakes.modal import FakeModal

ROUTER = "POST /modal.task_command_router.TaskCommandRouter"
UNIMPLEMENTED = 12


def test_a_server_without_probes_is_ready_when_it_runs_commands(clean: FakeModal) -> None:
    clean.script.add(Fault(match=f"{ROUTER}/SandboxWaitUntilReady", kind="status", status=UNIMPLEMENTED, times=None))
    handle = made(clean)
    assert run(clean, handle, "echo", "ran") == (0, b"ran\n", b"")
    ModalExtension().teardown(handle, context(clean))


def test_a_command_whose_input_is_refused_is_ended_and_does_not_wait_for_it(clean: FakeModal) -> None:
    """Promise 22: without a deadline it would wait for ever."""
    handle = made(clean)
    clean.script.add(Fault(match=f"{ROUTER}/TaskExecStdinWrite", kind="status", status=UNIMPLEMENTED, times=None))
    with pytest.raises(BackendError, match="writing to its input"):
        run(clean, handle, "cat", stdin=b"never read", seconds=60)
    clean.script.clear()
    ModalExtension().teardown(handle, context(clean))
