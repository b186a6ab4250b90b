"""Stacks are stopped and started by their own compose program: the same containers, files and ports."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxer.errors import BackendError, Conflict
from tests.extensions.compose.sandboxes import EXTENSION, Bed
from tests.testbed import repositories
from tests.testbed.image import BASE


def test_a_stack_comes_back_with_its_files_its_ports_and_healthy(either: Bed, tmp_path: Path) -> None:
    repo = repositories.web_and_db(tmp_path / "shop", port=18473)
    with either.nothing_left(), either.sandbox(repo, settle=0.3) as (handle, ready):
        for words in ("echo kept >/data/row", "echo kept >/file"):
            assert either.run(handle, "sh", "-c", words, service="db")[0] == 0
        EXTENSION.stop(handle, either.context())
        assert EXTENSION.status(handle, either.context()).is_stopped
        with pytest.raises(Conflict) as caught:
            either.run(handle, "true", service="db")
        assert (caught.value.details or {})["presence"] == "stopped"
        assert "sandboxer start" in caught.value.hint
        EXTENSION.renew(handle, 2111111111.0, either.context())
        assert EXTENSION.status(handle, either.context()).is_stopped
        again = EXTENSION.start(handle, 2111111111.0, either.context(seconds=120))
        assert EXTENSION.status(handle, either.context()).presence == "running"
        assert either.run(handle, "cat", "/data/row", "/file", service="db")[:2] == (0, b"kept\nkept\n")
        told = again.reachability.services
        assert either.wait(handle).reachability.services == told
        if either.kind == "podman-compose":  # docker chooses free ports anew
            assert told == ready.reachability.services
    with either.nothing_left(), either.sandbox(repo, settle=0.3, publish="declared") as (handle, ready):
        EXTENSION.stop(handle, either.context())
        again = EXTENSION.start(handle, None, either.context(seconds=120))
        assert again.reachability.services == ready.reachability.services
        assert [service.port for service in again.reachability.services] == [18473]


def test_a_service_that_had_ended_runs_again_and_one_that_fails_then_is_told(either: Bed, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        f"services:\n  main:\n    image: {BASE}\n    command: ['sh', '-c', 'while :; do sleep 0.2; done']\n"
        f"  once:\n    image: {BASE}\n    command: ['sh', '-c', 'echo x >>/log; [ $$(wc -l </log) -lt 3 ]']\n"
    )
    with either.nothing_left(), either.sandbox(tmp_path, settle=0.3) as (handle, _ready):
        EXTENSION.stop(handle, either.context())
        EXTENSION.start(handle, None, either.context())
        EXTENSION.stop(handle, either.context())
        with pytest.raises(BackendError, match="once"):
            EXTENSION.start(handle, None, either.context())
        assert EXTENSION.status(handle, either.context()).presence == "running", "the rest does run"


def test_a_stack_that_has_ended_by_itself_is_not_stopped(either: Bed, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(f"services:\n  once:\n    image: {BASE}\n    command: ['true']\n")
    with either.nothing_left(), either.sandbox(tmp_path, settle=0.3) as (handle, _ready):
        status = EXTENSION.status(handle, either.context())
        assert (status.presence, status.is_stopped) == ("stopped", False)
        EXTENSION.stop(handle, either.context())
        assert EXTENSION.status(handle, either.context()).is_stopped
        EXTENSION.start(handle, None, either.context())
        assert not EXTENSION.status(handle, either.context()).is_stopped
