"""The fake is proved by Modal's own SDK, by its blocking calls, as anybody would use it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sandboxer.extensions.modal import client as sdk
from tests.fakes import Fault
from tests.fakes.modal import FakeModal
from tests.testbed.waiting import eventually

CONTROL = "/modal.client.ModalClient"
modal = sdk.load()


@pytest.fixture
def client(clean: FakeModal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The SDK's client, made as its documentation says."""
    told = clean.environment()
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    made = modal.Client.from_credentials(told["MODAL_TOKEN_ID"], told["MODAL_TOKEN_SECRET"])
    yield made
    made.close()


@pytest.fixture
def app(client: Any) -> Any:
    return modal.App.lookup("sdk", create_if_missing=True, client=client)


@pytest.fixture(params=[None, "T4"], ids=["v2", "v1"])
def box(request: pytest.FixtureRequest, app: Any, client: Any) -> Iterator[Any]:
    """A sandbox of either kind: one with a GPU goes the old way."""
    made = modal.Sandbox.create(
        "sh", "-c", "echo from main; sleep 300", app=app, client=client, gpu=request.param,
        name="the-box", tags={"team": "a", "n": "1"}, env={"GREETING": "hello there"}, timeout=300, workdir="/work",
        encrypted_ports=[8080],
    )  # fmt: skip
    yield made
    made.terminate(wait=True)


def test_a_sandbox_runs_commands_with_streams_codes_and_input(box: Any) -> None:
    told = box.exec("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (told.stdout.read(), told.stderr.read(), told.wait()) == ("out\n", "err\n", 3)
    cat = box.exec("cat", text=False)
    cat.stdin.write(bytes(range(256)) * 1000)
    cat.stdin.drain()
    cat.stdin.write_eof()
    cat.stdin.drain()
    assert cat.stdout.read() == bytes(range(256)) * 1000
    assert cat.wait() == 0


def test_environment_and_directory_are_as_asked(box: Any) -> None:
    told = box.exec("sh", "-c", 'echo "$GREETING $OF $PWD"', env={"OF": "mine"})
    assert told.stdout.read() == "hello there mine /work\n"
    assert box.exec("pwd", workdir="/tmp").stdout.read() == "/tmp\n"


def test_a_command_over_its_time_is_killed(box: Any) -> None:
    assert box.exec("sleep", "300", timeout=1).wait() in (-1, 137)


def test_tags_tunnels_and_names_are_found_again(box: Any, app: Any, client: Any) -> None:
    assert box.get_tags() == {"team": "a", "n": "1"}
    box.set_tags({"team": "b"})
    assert box.get_tags() == {"team": "b"}
    assert box.tunnels()[8080].port == 8080
    assert modal.Sandbox.from_name("sdk", "the-box", client=client).object_id == box.object_id
    again = modal.Sandbox.from_id(box.object_id, client=client)
    assert again.poll() is None
    assert again.exec("cat", "/etc/hostname", text=True).wait() in (0, 1)


def test_what_it_ends_with_is_told_and_its_name_is_free_again(box: Any, client: Any) -> None:
    assert box.terminate(wait=True) == 137
    assert box.terminate(wait=True) == 137
    assert modal.Sandbox.from_id(box.object_id, client=client).returncode == 137
    with pytest.raises(modal.exception.NotFoundError):
        modal.Sandbox.from_name("sdk", "the-box", client=client)


def test_the_output_of_its_own_program_can_be_followed_and_read_later(box: Any) -> None:
    first = next(iter(box.stdout))
    assert first == "from main\n"
    eventually(lambda: [entry.message for entry in box.logs.tail(5)] == ["from main\n"], within=5, what="the log")


def test_files_are_kept_in_an_image(box: Any, app: Any, client: Any, clean: FakeModal) -> None:
    box.exec("sh", "-c", "echo kept > /work/file").wait()
    image = box.snapshot_filesystem()
    box.exec("sh", "-c", "echo changed > /work/file").wait()
    other = modal.Sandbox.create("sleep", "300", app=app, client=client, image=image)
    assert other.exec("cat", "/work/file").stdout.read() == "kept\n"
    other.terminate(wait=True)
    assert image.object_id in clean.census()
    modal.experimental.image_delete(image.object_id, client=client)
    assert image.object_id not in clean.census()
    with pytest.raises(modal.exception.NotFoundError):
        modal.experimental.image_delete(image.object_id, client=client)


def test_a_name_is_taken_once(box: Any, app: Any, client: Any) -> None:
    with pytest.raises(modal.exception.AlreadyExistsError):
        modal.Sandbox.create("sleep", "9", app=app, client=client, name="the-box")


def test_listing_goes_by_app_and_tags_and_through_all_pages(app: Any, client: Any, clean: FakeModal) -> None:
    clean.world.page = 2
    other = modal.App.lookup("another", create_if_missing=True, client=client)
    mine = [
        modal.Sandbox.create(
            "sleep", "300", app=app, client=client, tags={"n": str(n % 2)}, gpu="T4" if n == 0 else None
        )
        for n in range(5)
    ]
    strange = modal.Sandbox.create("sleep", "300", app=other, client=client, tags={"n": "0"})

    def listed(**asked: Any) -> set[str]:
        return {found.object_id for found in modal.Sandbox.list(client=client, **asked)}

    assert listed(app_id=app.app_id) == {box.object_id for box in mine}
    assert listed(app_id=app.app_id, tags={"n": "1"}) == {mine[1].object_id, mine[3].object_id}
    mine[1].terminate(wait=True)
    assert listed(app_id=app.app_id, tags={"n": "1"}) == {mine[3].object_id}
    for box in (*mine, strange):
        box.terminate(wait=True)
    assert listed(app_id=app.app_id) == set()


def test_a_life_ends_by_itself(app: Any, client: Any) -> None:
    box = modal.Sandbox.create("sleep", "300", app=app, client=client, timeout=1)
    with pytest.raises(modal.exception.SandboxTimeoutError):
        box.wait()
    assert box.returncode == 124
    short = modal.Sandbox.create("sh", "-c", "exit 7", app=app, client=client)
    short.wait()
    assert short.returncode == 7


def test_readiness_is_what_the_probe_says(app: Any, client: Any) -> None:
    probe = modal.Probe.with_exec("test", "-e", "/tmp/now")
    box = modal.Sandbox.create("sleep", "300", app=app, client=client, readiness_probe=probe)
    with pytest.raises(modal.exception.TimeoutError):
        box.wait_until_ready(timeout=1)
    box.exec("touch", "/tmp/now").wait()
    box.wait_until_ready(timeout=10)
    box.terminate()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (16, "AuthError"), (7, "PermissionDeniedError"), (8, "ResourceExhaustedError"), (3, "InvalidError"),
        (5, "NotFoundError"), (9, "ConflictError"), (12, "UnimplementedError"),
    ],
)  # fmt: skip
def test_refusals_reach_the_sdk_as_its_own_errors(
    status: int, error: str, app: Any, client: Any, clean: FakeModal
) -> None:
    clean.script.add(Fault(match=f"POST {CONTROL}/SandboxCreateV2", kind="status", status=status, body="so it is"))
    with pytest.raises(getattr(modal.exception, error), match="so it is"):
        modal.Sandbox.create("sleep", "9", app=app, client=client)
    assert [fault.status for fault, _ in clean.script.struck][-1] == status


def test_a_wrong_token_is_refused(clean: FakeModal, client: Any) -> None:
    wrong = modal.Client.from_credentials("ak-wrong", "as-wrong")
    with pytest.raises(modal.exception.AuthError):
        modal.App.lookup("sdk", create_if_missing=True, client=wrong)
    wrong.close()


@pytest.mark.parametrize("kind", ["lost-answer", "status"])
def test_a_call_that_fails_on_the_way_is_sent_again_with_the_same_key(
    kind: Any, app: Any, client: Any, clean: FakeModal
) -> None:
    """Promise 7: a create whose answer is lost is one sandbox."""
    before = clean.creates
    clean.script.add(Fault(match=f"POST {CONTROL}/SandboxCreateV2", kind=kind, status=14))
    box = modal.Sandbox.create("sleep", "300", app=app, client=client)
    sent = [call.metadata["x-idempotency-key"] for call in clean.calls if call.method == "SandboxCreateV2"][-2:]
    assert sent[0] == sent[1]
    assert clean.creates == before + 1
    box.terminate(wait=True)


def test_without_a_machine_a_gpu_waits(app: Any, client: Any, clean: FakeModal) -> None:
    clean.world.gpus = 1
    first = modal.Sandbox.create("sleep", "300", app=app, client=client, gpu="T4")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(modal.Sandbox.create, "sleep", "300", app=app, client=client, gpu="T4")
        eventually(lambda: len(clean.world.living()) == 2, within=5, what="the second is asked for")
        assert not waiting.done()
        first.terminate(wait=True)
        second = waiting.result(timeout=10)
    assert second.exec("true").wait() == 0
    second.terminate(wait=True)
    billed = clean.billed_seconds(second.object_id)
    assert 0 < billed == clean.billed_seconds(second.object_id)
