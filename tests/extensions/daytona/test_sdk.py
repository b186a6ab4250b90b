"""The fake is held to Daytona's own client: daytona 0.226, sync and async, does its work against it."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator

import pytest

from tests.fakes.daytona import FakeDaytona

pytest.importorskip("daytona", reason="the provider's own client is in the test extra")

from daytona import (
    AsyncDaytona,
    CreateSandboxFromImageParams,
    CreateSandboxFromSnapshotParams,
    Daytona,
    DaytonaConfig,
    DaytonaError,
    DaytonaNotFoundError,
    ListSandboxesQuery,
    Resources,
    Sandbox,
    SandboxState,
    SessionExecuteRequest,
)
from daytona.common.errors import DaytonaAuthenticationError, DaytonaConflictError


@pytest.fixture(scope="module")
def client(shared: FakeDaytona) -> Daytona:
    return client_of(shared)


def client_of(fake: FakeDaytona, key: str | None = None) -> Daytona:
    """A client without the websocket that it would keep trying to open."""
    found = fake.environment()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return Daytona(
            DaytonaConfig(
                api_key=key or found["DAYTONA_API_KEY"],
                api_url=found["DAYTONA_API_URL"],
                target="us",
                use_deprecated_polling=True,
            )
        )


@pytest.fixture
def sandbox(client: Daytona) -> Iterator[Sandbox]:
    made = client.create(CreateSandboxFromSnapshotParams(labels={"who": "sdk"}))
    yield made
    made.delete(wait=True)


def test_create_from_an_image_with_labels_ttl_and_resources(client: Daytona, shared: FakeDaytona) -> None:
    before = shared.census()
    made = client.create(
        CreateSandboxFromImageParams(
            image="debian:13",
            name="by-the-sdk",
            labels={"a": "b"},
            env_vars={"X": "y"},
            ttl_minutes=5,
            auto_stop_interval=0,
            auto_delete_interval=0,
            network_block_all=True,
            resources=Resources(cpu=2, memory=4, disk=5),
        )
    )
    assert (made.name, made.state, made.cpu, made.memory, made.disk) == ("by-the-sdk", SandboxState.STARTED, 2, 4, 5)
    assert made.labels == {"a": "b"} | {key: made.labels[key] for key in made.labels if key.startswith("code-toolbox")}
    assert made.network_block_all is True
    assert made.auto_destroy_at is not None
    made.delete(wait=True)
    assert shared.census() == before


def test_get_by_id_and_by_name(client: Daytona, sandbox: Sandbox) -> None:
    assert client.get(sandbox.id).id == sandbox.id
    assert client.get(sandbox.name).id == sandbox.id
    with pytest.raises(DaytonaNotFoundError):
        client.get("no-such-sandbox")


def test_list_by_label_over_several_pages(client: Daytona) -> None:
    made = [client.create(CreateSandboxFromSnapshotParams(labels={"page": "yes"})) for _ in range(5)]
    try:
        found = list(client.list(ListSandboxesQuery(labels={"page": "yes"}, limit=2)))
        assert {one.id for one in found} == {one.id for one in made}
        assert len(found) == 5
        assert list(client.list(ListSandboxesQuery(labels={"page": "no"}))) == []
    finally:
        for one in made:
            one.delete(wait=True)


def test_exec_with_its_directory_environment_code_and_timeout(sandbox: Sandbox) -> None:
    done = sandbox.process.exec('echo "$GREETING"; pwd; exit 3', cwd="/tmp", env={"GREETING": "hello"})
    assert (done.exit_code, done.result) == (3, "hello\n/tmp\n")
    started = time.monotonic()
    with pytest.raises(DaytonaError):
        sandbox.process.exec("sleep 60", timeout=1)
    assert time.monotonic() - started < 10


def test_sessions_keep_their_state_and_tell_outputs_apart(sandbox: Sandbox) -> None:
    sandbox.process.create_session("work")
    sandbox.process.execute_session_command("work", SessionExecuteRequest(command="cd /tmp"))
    done = sandbox.process.execute_session_command("work", SessionExecuteRequest(command="pwd; echo bad >&2; false"))
    assert (done.exit_code, done.stdout, done.stderr) == (1, "/tmp\n", "bad\n")
    later = sandbox.process.execute_session_command("work", SessionExecuteRequest(command="echo on", run_async=True))
    code, deadline = None, time.monotonic() + 10
    while code is None and time.monotonic() < deadline:
        code = sandbox.process.get_session_command("work", later.cmd_id).exit_code
    assert code == 0
    assert sandbox.process.get_session_command_logs("work", later.cmd_id).stdout == "on\n"
    assert [session.session_id for session in sandbox.process.list_sessions()] == ["work"]
    sandbox.process.delete_session("work")
    assert sandbox.process.list_sessions() == []


def test_files_go_in_and_come_out(sandbox: Sandbox) -> None:
    data = bytes(range(256)) * 1000
    sandbox.fs.create_folder("/tmp/there", "755")
    sandbox.fs.upload_file(data, "/tmp/there/file")
    assert sandbox.fs.download_file("/tmp/there/file") == data
    assert [entry.name for entry in sandbox.fs.list_files("/tmp/there")] == ["file"]
    assert sandbox.fs.get_file_info("/tmp/there/file").size == len(data)
    sandbox.fs.move_files("/tmp/there/file", "/tmp/there/other")
    sandbox.fs.delete_file("/tmp/there/other")
    with pytest.raises(DaytonaError):
        sandbox.fs.download_file("/tmp/there/other")
    assert sandbox.get_work_dir() == sandbox.get_user_home_dir() == "/home/daytona"


def test_a_preview_lets_in_who_has_its_token(sandbox: Sandbox) -> None:
    link = sandbox.get_preview_link(8080)
    assert link.token
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(link.url, timeout=5)  # noqa: S310 - the fake's own address
    assert caught.value.code == 401
    assert sandbox.create_signed_preview_url(8080).port == 8080


def test_ssh_access_comes_and_goes(sandbox: Sandbox, shared: FakeDaytona) -> None:
    access = sandbox.create_ssh_access(expires_in_minutes=5)
    assert access.token in access.ssh_command
    assert sandbox.validate_ssh_access(access.token).valid
    assert access.token in shared.ssh_tokens
    sandbox.revoke_ssh_access(access.token)
    assert access.token not in shared.ssh_tokens


def test_labels_timers_and_activity_can_be_changed(client: Daytona, sandbox: Sandbox) -> None:
    sandbox.set_labels({"new": "label"})
    sandbox.set_ttl(30)
    sandbox.set_autostop_interval(7)
    sandbox.set_auto_delete_interval(9)
    sandbox.refresh_activity()
    seen = client.get(sandbox.id)
    assert (seen.labels, seen.auto_stop_interval, seen.auto_delete_interval) == ({"new": "label"}, 7, 9)
    assert seen.auto_destroy_at is not None


def test_stopping_keeps_files_and_starting_brings_them_back(sandbox: Sandbox) -> None:
    sandbox.process.exec("echo kept > kept")
    sandbox.stop()
    assert sandbox.state == SandboxState.STOPPED
    with pytest.raises(DaytonaError):
        sandbox.process.exec("true")
    sandbox.start()
    assert sandbox.process.exec("cat kept").result == "kept\n"


def test_a_snapshot_makes_another_sandbox(client: Daytona, sandbox: Sandbox) -> None:
    sandbox.process.exec("echo kept > kept")
    sandbox.create_snapshot("of-the-sdk")
    other = client.create(CreateSandboxFromSnapshotParams(snapshot="of-the-sdk"))
    assert other.process.exec("cat kept").result == "kept\n"
    other.delete(wait=True)
    client.snapshot.delete(client.snapshot.get("of-the-sdk"))
    with pytest.raises(DaytonaError):
        client.create(CreateSandboxFromSnapshotParams(snapshot="of-the-sdk"))


def test_a_name_that_is_taken_is_a_conflict(client: Daytona, sandbox: Sandbox) -> None:
    with pytest.raises(DaytonaConflictError):
        client.create(CreateSandboxFromSnapshotParams(name=sandbox.name))


def test_a_bad_key_is_an_authentication_error(shared: FakeDaytona) -> None:
    with pytest.raises(DaytonaAuthenticationError):
        client_of(shared, key="dtn_wrong").get("anything")


def test_an_image_that_cannot_be_built_is_an_error_with_its_reason(client: Daytona, shared: FakeDaytona) -> None:
    with pytest.raises(DaytonaError, match="manifest unknown"):
        client.create(CreateSandboxFromImageParams(image="broken:1", name="never-up"))
    client.get("never-up").delete(wait=True)
    assert not [line for line in shared.census() if "never-up" in line]


def test_the_async_client_does_the_same(shared: FakeDaytona) -> None:
    async def work() -> None:
        found = shared.environment()
        config = DaytonaConfig(
            api_key=found["DAYTONA_API_KEY"],
            api_url=found["DAYTONA_API_URL"],
            target="us",
            use_deprecated_polling=True,
        )
        async with AsyncDaytona(config) as client:
            made = await client.create(CreateSandboxFromImageParams(image="debian:13", labels={"by": "async"}))
            done = await made.process.exec("echo hi")
            assert (done.exit_code, done.result) == (0, "hi\n")
            await made.fs.upload_file(b"data", "/tmp/file")
            assert await made.fs.download_file("/tmp/file") == b"data"
            listed = [one.id async for one in client.list(ListSandboxesQuery(labels={"by": "async"}))]
            assert listed == [made.id]
            await made.stop()
            await made.start()
            await made.delete(wait=True)
            with pytest.raises(DaytonaNotFoundError):
                await client.get(made.id)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.run(work())
