"""exec and leases over HTTP."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from httpx import Client

from sandboxer.bootstrap import Installation
from tests.api.serving import Served
from tests.testbed.waiting import eventually


@pytest.fixture(scope="module")
def lasting(shared_api: Client) -> str:
    """The path of a sandbox that several tests use and none ends."""
    return ready_one(shared_api)


@pytest.fixture
def ready(api: Client) -> str:
    return ready_one(api)


def ready_one(api: Client) -> str:
    sandbox_id: str = api.post("/v1/sandboxes?wait=true", json={"profile": "profile.fake"}).json()["id"]
    return f"/v1/sandboxes/{sandbox_id}"


def test_exec_answers_the_exit_code_and_both_streams(shared_api: Client, lasting: str) -> None:
    answer = shared_api.post(f"{lasting}/exec", json={"argv": ["sh", "-c", "echo out; echo err >&2; exit 7"]})
    assert answer.status_code == 200
    assert answer.json() == {
        "exit_code": 7, "stdout": "out\n", "stderr": "err\n", "stdout_base64": None, "stderr_base64": None,
        "stdout_truncated": False, "stderr_truncated": False,
    }  # fmt: skip


def test_exec_passes_words_and_environment_byte_for_byte(shared_api: Client, lasting: str) -> None:
    """Promise 24."""
    words = ["$(id)", "a b", "'", '"', "\\", "`", ";", "&&", "ü", "", "\n", "*"]
    script = 'for word; do printf "%s|" "$word"; done; printf %s "$X"'
    answer = shared_api.post(
        f"{lasting}/exec", json={"argv": ["sh", "-c", script, "sh", *words], "env": {"X": "$HOME;"}}
    )
    assert answer.json()["stdout"] == "|".join(words) + "|" + "$HOME;"


def test_exec_takes_input_as_text_or_base64(shared_api: Client, lasting: str) -> None:
    raw = bytes(range(256))
    text = shared_api.post(f"{lasting}/exec", json={"argv": ["cat"], "stdin": "grüß"}).json()
    assert text["stdout"] == "grüß"
    binary = shared_api.post(
        f"{lasting}/exec", json={"argv": ["cat"], "stdin_base64": base64.b64encode(raw).decode()}
    ).json()
    assert base64.b64decode(binary["stdout_base64"]) == raw


def test_output_is_bounded_and_says_so(shared_api: Client, lasting: str) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' x; echo short >&2"
    answer = shared_api.post(f"{lasting}/exec", json={"argv": ["sh", "-c", script]}).json()
    assert len(answer["stdout"]) == 1024 * 1024
    assert (answer["stdout_truncated"], answer["stderr_truncated"]) == (True, False)
    assert answer["stderr"] == "short\n"


def test_a_command_that_takes_too_long_is_504_and_killed(shared_api: Client, lasting: str) -> None:
    """Promise 22."""
    started = time.monotonic()
    answer = shared_api.post(f"{lasting}/exec", json={"argv": ["sleep", "60"], "timeout": 1})
    assert (answer.status_code, answer.json()["code"]) == (504, "timeout")
    assert time.monotonic() - started < 30


def test_a_command_that_takes_too_long_tells_what_it_wrote(shared_api: Client, lasting: str) -> None:
    """It was lost with the command."""
    script = "echo a part; printf '\\377' >&2; exec sleep 60"
    answer = shared_api.post(f"{lasting}/exec", json={"argv": ["sh", "-c", script], "timeout": 5})
    assert (answer.status_code, answer.json()["code"]) == (504, "timeout")
    assert answer.json()["details"] == {
        "stdout": "a part\n", "stdout_truncated": False, "stderr_base64": "/w==", "stderr_truncated": False,
    }  # fmt: skip


def test_a_command_is_not_ended_for_its_output(shared_api: Client, lasting: str) -> None:
    script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 7"
    answer = shared_api.post(f"{lasting}/exec", json={"argv": ["sh", "-c", script]}).json()
    assert (answer["exit_code"], answer["stdout_truncated"], answer["stderr_truncated"]) == (7, True, True)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"argv": []}, {"argv": [""]}, {"argv": "ls"}, {"argv": ["a\x00b"]}, {"argv": ["ls"], "timeout": "2h"},
        {"argv": ["ls"], "timeout": 0}, {"argv": ["ls"], "stdin": "a", "stdin_base64": "YQ=="},
        {"argv": ["ls"], "stdin_base64": "not base64!"}, {"argv": ["ls"], "env": {"A=B": "x"}},
        {"argv": ["ls"], "env": {"A": "\x00"}}, {"argv": ["ls"], "service": "-x"}, {"argv": ["ls"], "tty": True},
        {"argv": ["ls"], "cwd": "\x00"},
    ],
)  # fmt: skip
def test_a_wrong_exec_is_422(shared_api: Client, lasting: str, body: object) -> None:
    assert shared_api.post(f"{lasting}/exec", json=body).status_code == 422


HALVES = {
    "argv": r'{"argv": ["echo", "\ud800"]}',
    "a low one": r'{"argv": ["echo", "\uDC80"]}',
    "in UTF-8": b'{"argv": ["echo", "\xed\xa0\x80"]}',
    "two the wrong way": r'{"argv": ["echo", "\udc00\ud800"]}',
    "env": r'{"argv": ["true"], "env": {"A": "\ud800"}}',
    "a name of env": r'{"argv": ["true"], "env": {"\ud800": "a"}}',
    "stdin": r'{"argv": ["cat"], "stdin": "a\udfffb"}',
    "cwd": r'{"argv": ["true"], "cwd": "/\ud800"}',
    "service": r'{"argv": ["true"], "service": "\ud800"}',
    "a name that is not known": r'{"argv": ["true"], "\ud800": 1}',
}
CREATES = {
    "an input": r'{"profile": "profile.fake", "inputs": {"greeting": "\ud800"}}',
    "a name of an input": r'{"profile": "profile.fake", "inputs": {"\ud800": "a"}}',
    "a label": r'{"profile": "profile.fake", "labels": {"a": "\ud800"}}',
    "a name of a label": r'{"profile": "profile.fake", "labels": {"\ud800": "a"}}',
    "profile": r'{"profile": "\ud800"}',
    "name": r'{"profile": "profile.fake", "name": "\ud800"}',
    "host": r'{"profile": "profile.fake", "host": "\ud800"}',
    "consumer": r'{"profile": "profile.fake", "consumer": "agt:\ud800"}',
    "a path": r'{"profile": "profile.fake", "inputs": {"tree": "/\udc80"}}',
}


def sent(client: Client, path: str, body: str | bytes) -> tuple[int, str]:
    """The status and the code that a body gets, as it is."""
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    return answer.status_code, answer.json().get("code", "")


@pytest.mark.parametrize("body", HALVES.values(), ids=HALVES.keys())
def test_half_of_a_surrogate_pair_is_no_text(shared_api: Client, lasting: str, body: str | bytes) -> None:
    """It was a bug of ours (500) wherever it was to become bytes."""
    assert sent(shared_api, f"{lasting}/exec", body) == (422, "invalid")


@pytest.mark.parametrize("body", CREATES.values(), ids=CREATES.keys())
def test_nor_does_it_get_into_a_record(shared_api: Client, body: str) -> None:
    assert sent(shared_api, "/v1/sandboxes", body) == (422, "invalid")
    assert sent(shared_api, "/v1/route/explain", body) == (422, "invalid")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("leases", r'{"holder": "\ud800"}'),
        ("extend-ttl", r'{"duration": "\ud800"}'),
        ("/v1/tokens", r'{"name": "\ud800", "role": "admin"}'),
        ("/v1/expire", r'{"\ud800": true}'),
    ],
)
def test_nor_into_any_other_body(shared_api: Client, lasting: str, path: str, body: str) -> None:
    assert sent(shared_api, path if path.startswith("/") else f"{lasting}/{path}", body) == (422, "invalid")


def test_a_whole_pair_is_a_character(shared_api: Client, lasting: str) -> None:
    answer = shared_api.post(
        f"{lasting}/exec", content=r'{"argv": ["echo", "\ud83d\ude00 \\ud800"]}',
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert answer.json()["stdout"] == "\N{GRINNING FACE} \\ud800\n"


@pytest.mark.parametrize("argv", [["x" * 200_000], ["sh", "-c", ":", "y" * 300_000], ["/nowhere/at/all"], ["/"], ["."]])
def test_a_command_that_cannot_be_run_is_no_bug(shared_api: Client, lasting: str, argv: list[str]) -> None:
    """Promise 30."""
    answer = shared_api.post(f"{lasting}/exec", json={"argv": argv})
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 200:
        assert answer.json()["exit_code"] in (126, 127)


def test_a_lease_makes_it_active_until_it_is_released(api: Client, ready: str) -> None:
    lease = api.post(f"{ready}/leases", json={"holder": "build 17", "duration": "10m"})
    assert lease.status_code == 201
    assert api.get(ready).json()["state"] == "active"
    assert api.get(f"{ready}/leases").json() == {"leases": [lease.json()]}
    assert [d["state"] for d in api.get("/v1/sandboxes?state=active").json()["sandboxes"]] == ["active"]
    assert api.delete(f"{ready}/leases/{lease.json()['id']}").status_code == 204
    assert api.get(ready).json()["state"] == "ready"
    assert api.delete(f"{ready}/leases/{lease.json()['id']}").status_code == 404


def test_a_lease_can_be_renewed(api: Client, ready: str) -> None:
    lease = api.post(f"{ready}/leases").json()
    renewed = api.put(f"{ready}/leases/{lease['id']}", json={"duration": "1h"})
    assert renewed.status_code == 200
    assert renewed.json()["id"] == lease["id"]
    assert renewed.json()["expires_at"] > lease["expires_at"]
    assert api.put(f"{ready}/leases/absent", json={"duration": 60}).status_code == 404


def test_one_lease_can_be_looked_at(api: Client, ready: str) -> None:
    """Contract §6: `GET|POST|DELETE .../leases[/{lease}]`."""
    lease = api.post(f"{ready}/leases", json={"holder": "build 17"}).json()
    found = api.get(f"{ready}/leases/{lease['id']}")
    assert (found.status_code, found.json()) == (200, lease)
    longer = api.post(f"{ready}/leases/{lease['id']}", json={"duration": "1h"})
    assert longer.status_code == 200
    assert api.get(f"{ready}/leases/{lease['id']}").json() == longer.json()
    assert api.delete(f"{ready}/leases/{lease['id']}").status_code == 204
    gone = api.get(f"{ready}/leases/{lease['id']}")
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")


def test_a_lease_is_for_a_day_at_most(shared_api: Client, lasting: str) -> None:
    assert shared_api.post(f"{lasting}/leases", json={"duration": "25h"}).status_code == 422
    assert shared_api.post(f"{lasting}/leases", json={"holder": ""}).status_code == 422


def test_a_running_exec_is_shown_as_a_lease(api: Client, ready: str) -> None:
    running = threading.Thread(target=api.post, args=(f"{ready}/exec",), kwargs={"json": {"argv": ["sleep", "1"]}})
    running.start()
    found = eventually(lambda: api.get(f"{ready}/leases").json()["leases"], within=5, what="the lease is shown")
    assert (found[0]["holder"], found[0]["expires_at"]) == ("exec", None)
    running.join(10)
    assert api.get(f"{ready}/leases").json() == {"leases": []}


def test_what_has_ended_cannot_be_used(api: Client, ready: str) -> None:
    api.delete(f"{ready}?wait=true")
    assert api.post(f"{ready}/exec", json={"argv": ["true"]}).status_code == 409
    assert api.post(f"{ready}/leases").status_code == 409


def test_the_end_of_a_ttl_ends_what_is_leased_too(api: Client, here: Installation, ready: str) -> None:
    """A lease keeps it from being idle; `extend-ttl` is what lets it live longer."""
    api.post(f"{ready}/leases")
    object.__setattr__(here.manager.services, "clock", lambda: time.time() + 7200)
    done = api.post("/v1/expire", json={"apply": True})
    assert (done.status_code, done.json()["actions"][0]["outcome"]) == (200, "done")
    assert api.get(ready).json()["state"] == "destroyed"


def test_exec_ends_with_its_client(served: Served) -> None:
    """Contract 9: what was started in the foreground does not go on for nobody, nor does what it has started."""
    seconds = str(1_000_000 + int.from_bytes(os.urandom(4)))
    with Client(base_url=f"http://127.0.0.1:{served.port}", timeout=60) as api:
        path = ready_one(api)
        body = json.dumps({"argv": ["sh", "-c", f"sleep {seconds} & sleep {seconds}"], "timeout": 3600})
        head = f"POST {path}/exec HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", served.port), timeout=60) as client:
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            eventually(lambda: len(sleeping(seconds)) == 2, within=60, what="the command runs")
        eventually(lambda: not sleeping(seconds), within=30, what="the command has ended")
        eventually(lambda: api.delete(path).status_code == 200, within=60, what="nobody uses the sandbox any more")


def sleeping(seconds: str) -> list[int]:
    """The processes that sleep for so long."""
    words = f"sleep\0{seconds}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cmdline").read_bytes() == words:
                found.append(int(process.name))
    return found
