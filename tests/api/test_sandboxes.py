"""Establish, look and end over HTTP (contract §6)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from httpx import Client

from sandboxer.bootstrap import Installation
from sandboxer.errors import BackendError, Conflict, Unavailable
from sandboxer.extensions.base import Context, Spec
from sandboxer.manager.establish.create import PendingCreate
from sandboxer.models import Handle, Request
from sandboxer.testing.fake import FakeExtension, Faults
from tests.api.serving import called
from tests.installations import create, installed, lay_out, left_over
from tests.testbed.waiting import eventually

FAKE = {"profile": "profile.fake"}


def settled(api: Client, sandbox_id: str, state: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        document: dict[str, Any] = api.get(f"/v1/sandboxes/{sandbox_id}").json()
        return document if document["state"] == state else None

    found = eventually(look, within=10, what=f"{sandbox_id} is {state}")
    assert found is not None
    return found


class Held(FakeExtension):
    """A backend that takes as long as the test likes."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.begun = threading.Event()

    def provision(self, spec: Spec, ctx: Context) -> Handle:
        self.begun.set()
        while not self.go_on.wait(0.02):
            ctx.deadline.check("waiting for the test")
        return super().provision(spec, ctx)


@contextmanager
def held(here: Installation) -> Iterator[Held]:
    backend = Held()
    here.manager.services.extensions.add("ext.fake", lambda: backend)
    try:
        yield backend
    finally:
        backend.go_on.set()


def test_create_answers_at_once_and_the_sandbox_becomes_ready(api: Client, here: Installation) -> None:
    with held(here) as backend:
        answer = api.post("/v1/sandboxes", json={**FAKE, "name": "one", "labels": {"team": "a"}, "ttl": "2h"})
        assert answer.status_code == 202
        document = answer.json()
        assert document["state"] == "provisioning"
        assert answer.headers["Location"] == f"/v1/sandboxes/{document['id']}"
        assert api.get("/v1/sandboxes/one").json()["id"] == document["id"]
        backend.go_on.set()
        ready = settled(api, document["id"], "ready")
    assert ready["reachability"]["kind"] == "local"
    assert ready["labels"] == {"team": "a"}
    assert ready["consumer"] == {"actor": "agt", "name": "api"}


def test_create_with_wait_holds_until_ready(api: Client) -> None:
    answer = api.post("/v1/sandboxes?wait=true", json=FAKE)
    assert (answer.status_code, answer.json()["state"]) == (201, "ready")
    assert answer.headers["Location"] == f"/v1/sandboxes/{answer.json()['id']}"


def test_create_without_a_body_asks_for_the_default_profile(tmp_path: Path) -> None:
    lay_out(tmp_path, config=f"hosts: {{local: {{work_dir: {tmp_path}/work}}}}\ndefaults: {{profile: profile.fake}}\n")
    with called(installed(tmp_path)) as api:
        assert api.post("/v1/sandboxes?wait=true").json()["profile"] == "profile.fake"


@pytest.mark.parametrize("consumer", ["agt:builder", {"actor": "agt", "name": "builder"}])
def test_the_consumer_can_be_told_in_two_ways(api: Client, consumer: object) -> None:
    answer = api.post("/v1/sandboxes?wait=true", json={**FAKE, "consumer": consumer})
    assert answer.json()["consumer"] == {"actor": "agt", "name": "builder"}


@pytest.mark.parametrize("ttl", ["90s", 90, "90"])
def test_a_ttl_is_a_duration_or_seconds(api: Client, here: Installation, ttl: object) -> None:
    document = api.post("/v1/sandboxes?wait=true", json={**FAKE, "ttl": ttl}).json()
    record = here.manager.get(document["id"])
    assert record.expires_at == pytest.approx(record.created_at + 90)


@pytest.mark.parametrize(
    "body",
    [
        {"profil": "profile.fake"},
        {**FAKE, "ttl": "soon"},
        {**FAKE, "ttl": True},
        {**FAKE, "ttl": 0},
        {**FAKE, "ttl": "25h"},
        {**FAKE, "ttl": 1.5},
        {**FAKE, "inputs": {"nothing": "x"}},
        {**FAKE, "inputs": {"greeting": {"deep": 1}}},
        {**FAKE, "labels": {"sandboxer.id": "x"}},
        {**FAKE, "labels": {"a": 1}},
        {**FAKE, "name": "Not A Name"},
        {**FAKE, "consumer": "me"},
        {**FAKE, "consumer": {"actor": "root", "name": "x"}},
        {**FAKE, "consumer": {"actor": "adm", "name": "x", "also": 1}},
        [],
        "profile.fake",
        7,
    ],
)
def test_a_wrong_request_is_422_and_makes_nothing(shared_api: Client, body: object) -> None:
    """Unknown keys and wrong types are refused, in the shape of every error (contract §6)."""
    answer = shared_api.post("/v1/sandboxes", json=body)
    problem = answer.json()
    assert answer.status_code == 422, problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["code"], problem["status"], problem["retryable"], problem["outcome"]) == (
        "invalid", 422, False, "failed",
    )  # fmt: skip
    assert problem["message"] == problem["detail"]
    assert problem["hint"]
    assert shared_api.get("/v1/sandboxes?all=true").json()["sandboxes"] == []


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"ttl": "2H"}, "body.ttl: Input should be like 90s"), ({"ttl": 1.5}, "body.ttl: Input should be like 90s"),
        ({"inputs": {"a": None}}, "body.inputs.a: Input should be text, a whole number, true or false"),
        ({"consumer": {"actor": "root", "name": "x"}}, "body.consumer: Input should be like agt:NAME"),
    ],
)  # fmt: skip
def test_what_may_be_of_several_types_is_told_once_and_in_words(shared_api: Client, body: object, told: str) -> None:
    problem = shared_api.post("/v1/sandboxes", json=body).json()
    assert problem["message"].startswith(told)
    assert len(problem["details"]["errors"]) == 1


def test_a_refused_value_is_not_repeated(api: Client) -> None:
    """Promise 28: what is refused may be a secret in the wrong place."""
    answer = api.post("/v1/sandboxes", json={**FAKE, "inputs": {"token": ["hunter2"]}, "labels": {"a": ["hunter2"]}})
    assert answer.status_code == 422
    assert "hunter2" not in answer.text


def test_a_secret_input_is_shown_nowhere(api: Client) -> None:
    """Promise 28."""
    answer = api.post("/v1/sandboxes?wait=true", json={**FAKE, "inputs": {"token": "hunter2"}})
    assert answer.json()["inputs"] == {"token": "(secret)"}
    assert "hunter2" not in api.get("/v1/sandboxes").text + api.get("/v1/events").text


def test_a_profile_that_is_not_there_is_404(api: Client) -> None:
    problem = api.post("/v1/sandboxes", json={"profile": "profile.absent"}).json()
    assert (problem["code"], problem["status"], problem["type"]) == ("not_found", 404, "urn:sandboxer:error:not_found")
    assert problem["instance"] == "/v1/sandboxes"


def test_a_taken_name_is_409(api: Client) -> None:
    first = api.post("/v1/sandboxes?wait=true", json={**FAKE, "name": "mine"}).json()
    problem = api.post("/v1/sandboxes", json={**FAKE, "name": "mine"}).json()
    assert (problem["code"], problem["status"], problem["sandbox_id"]) == ("conflict", 409, first["id"])


def test_a_failed_create_answers_its_own_error_and_leaves_nothing(api: Client, faults: Faults, tmp_path: Path) -> None:
    """Promise 1."""
    faults.plan["provision.saved"] = BackendError("no room", hint="make room")
    answer = api.post("/v1/sandboxes?wait=true", json=FAKE)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["message"]) == (502, "backend_error", "no room")
    record = api.get(f"/v1/sandboxes/{problem['sandbox_id']}").json()
    assert (record["state"], record["error"]["message"]) == ("failed", "no room")
    assert left_over(tmp_path) == []


def test_a_bug_in_a_backend_is_500_without_its_traceback(
    api: Client, faults: Faults, capfd: pytest.CaptureFixture[str]
) -> None:
    """Promise 30: what is not an error of ours is told to the operator, not to the caller."""
    faults.plan["provision"] = ZeroDivisionError("the secret reason")
    answer = api.post("/v1/sandboxes?wait=true", json=FAKE)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "Traceback" not in answer.text
    assert "the secret reason" not in answer.text
    assert "the secret reason" in capfd.readouterr().err


def test_the_same_key_gives_the_same_sandbox(api: Client) -> None:
    header = {"Idempotency-Key": "k-1"}
    first = api.post("/v1/sandboxes?wait=true", json=FAKE, headers=header)
    again = api.post("/v1/sandboxes", json=FAKE, headers=header)
    waited = api.post("/v1/sandboxes?wait=true", json=FAKE, headers=header)
    assert first.json()["id"] == again.json()["id"] == waited.json()["id"]
    assert (again.status_code, waited.status_code) == (202, 201)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(api.get("/v1/sandboxes").json()["sandboxes"]) == 1


def test_the_same_key_with_another_request_is_409(api: Client) -> None:
    header = {"Idempotency-Key": "k-1"}
    first = api.post("/v1/sandboxes", json=FAKE, headers=header).json()
    answer = api.post("/v1/sandboxes", json={**FAKE, "ttl": 60}, headers=header)
    assert (answer.status_code, answer.json()["sandbox_id"]) == (409, first["id"])


def test_a_retry_may_wait_for_the_create_that_is_under_way(api: Client, here: Installation) -> None:
    header = {"Idempotency-Key": "k-1"}
    with held(here) as backend:
        api.post("/v1/sandboxes", json=FAKE, headers=header)
        threading.Timer(0.1, backend.go_on.set).start()
        answer = api.post("/v1/sandboxes?wait=true", json=FAKE, headers=header)
    assert (answer.status_code, answer.json()["state"]) == (201, "ready")


def test_a_retry_of_a_failed_create_tells_its_error(api: Client, faults: Faults) -> None:
    header = {"Idempotency-Key": "k-1"}
    faults.plan["provision"] = BackendError("no room")
    first = api.post("/v1/sandboxes?wait=true", json=FAKE, headers=header)
    again = api.post("/v1/sandboxes?wait=true", json=FAKE, headers=header)
    assert (first.status_code, again.status_code) == (502, 502)
    assert first.json()["sandbox_id"] == again.json()["sandbox_id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_malformed_key_is_422(shared_api: Client, key: str) -> None:
    assert shared_api.post("/v1/sandboxes", json=FAKE, headers={"Idempotency-Key": key}).status_code == 422


@pytest.mark.parametrize("host", ["root@192.0.2.1:22", "192.0.2.1", "metadata.internal", "", "-oProxyCommand=x"])
def test_a_caller_cannot_name_a_host_that_is_not_configured(shared_api: Client, host: str) -> None:
    """A caller must not make the server open connections to addresses of the caller's choice."""
    answer = shared_api.post("/v1/sandboxes", json={**FAKE, "host": host})
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    assert shared_api.get("/v1/sandboxes?all=true").json()["sandboxes"] == []


def test_paths_lie_below_the_allowed_roots(tmp_path: Path) -> None:
    """The server's files are not the caller's (contract §6)."""
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "way-out").symlink_to("/etc")
    lay_out(
        tmp_path,
        config=f"hosts: {{local: {{work_dir: {tmp_path}/work}}}}\napi: {{allowed_roots: ['{allowed}']}}\n",
    )
    with called(installed(tmp_path)) as api:

        def status(tree: str) -> int:
            return api.post("/v1/sandboxes?wait=true", json={**FAKE, "inputs": {"tree": tree}}).status_code

        assert status(str(allowed)) == 201
        assert status(str(allowed / "below")) == 201
        for outside in (
            "/etc",
            str(allowed / ".." / "x"),
            str(allowed / "way-out"),
            str(allowed) + "x",
            ".",
            "~",
            "etc",
        ):
            assert status(outside) == 403, outside


def test_a_path_out_there_is_answered_alike_whatever_is_there(tmp_path: Path) -> None:
    """Else the answers tell which users, processes and links the server's machine has."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    lay_out(tmp_path)
    with called(installed(tmp_path)) as api:
        answers = [
            api.post("/v1/sandboxes", json={**FAKE, "inputs": {"tree": tree}}).json()
            for tree in (
                "/nothing/there",
                "~root",
                "~nosuchuser/x",
                str(tmp_path / "loop"),
                f"{tmp_path}/loop/x",
                "/proc/1/root",
            )
        ]
    told = {(answer["status"], answer["code"], answer["message"], answer["hint"]) for answer in answers}
    assert len(told) == 1, told
    assert {answer["code"] for answer in answers} == {"denied"}


def test_no_path_is_allowed_unless_the_operator_says_so(api: Client) -> None:
    assert api.post("/v1/sandboxes", json={**FAKE, "inputs": {"tree": "/tmp"}}).status_code == 403


def test_recreate_is_bound_to_the_allowed_roots_too(api: Client, here: Installation, tmp_path: Path) -> None:
    """A sandbox that the operator made from some directory is no way for a caller to read it again."""
    record = create(here, inputs={"tree": str(tmp_path)})
    answer = api.post(f"/v1/sandboxes/{record.id}/recreate")
    assert answer.status_code == 403
    assert api.get(f"/v1/sandboxes/{record.id}").json()["state"] == "ready"


def test_recreate_destroys_nothing_for_a_place_that_is_not_trusted(
    api: Client, here: Installation, tmp_path: Path
) -> None:
    record = create(here)
    (tmp_path / "work").chmod(0o777)
    answer = api.post(f"/v1/sandboxes/{record.id}/recreate")
    assert (answer.status_code, answer.json()["code"]) == (403, "denied")
    (tmp_path / "work").chmod(0o755)
    assert api.get(f"/v1/sandboxes/{record.id}").json()["state"] == "ready"


def test_recreate_gives_a_new_id_and_ends_the_old_one(api: Client, tmp_path: Path) -> None:
    old = api.post("/v1/sandboxes?wait=true", json={**FAKE, "name": "keeps-its-name"}).json()
    answer = api.post(f"/v1/sandboxes/{old['id']}/recreate?wait=true")
    new = answer.json()
    assert answer.status_code == 201
    assert new["id"] != old["id"]
    assert new["name"] == "keeps-its-name"
    assert settled(api, old["id"], "destroyed")
    assert left_over(tmp_path) == [f"work/fake/sbx-{new['id']}"]


def test_destroy_is_recorded_at_once_and_carried_out(api: Client, tmp_path: Path) -> None:
    """Promise 4."""
    sandbox_id = api.post("/v1/sandboxes?wait=true", json=FAKE).json()["id"]
    first = api.delete(f"/v1/sandboxes/{sandbox_id}")
    assert (first.status_code, first.json()["state"]) == (202, "destroying")
    settled(api, sandbox_id, "destroyed")
    again = api.delete(f"/v1/sandboxes/{sandbox_id}")
    assert (again.status_code, again.json()["state"]) == (200, "destroyed")
    assert left_over(tmp_path) == []
    kinds = [event["event_type"] for event in api.get("/v1/events").json()["events"]]
    assert kinds.count("sandbox.destroyed") == 1


def test_destroy_with_wait_answers_when_it_is_gone(api: Client, tmp_path: Path) -> None:
    sandbox_id = api.post("/v1/sandboxes?wait=true", json=FAKE).json()["id"]
    answer = api.delete(f"/v1/sandboxes/{sandbox_id}?wait=true")
    assert (answer.status_code, answer.json()["state"]) == (200, "destroyed")
    assert left_over(tmp_path) == []


def test_a_teardown_that_fails_keeps_the_record(api: Client, faults: Faults) -> None:
    """Promise 5."""
    sandbox_id = api.post("/v1/sandboxes?wait=true", json=FAKE).json()["id"]
    faults.plan["teardown"] = Unavailable("the host is silent")
    answer = api.delete(f"/v1/sandboxes/{sandbox_id}?wait=true")
    assert (answer.status_code, answer.json()["sandbox_id"]) == (503, sandbox_id)
    assert answer.headers["Retry-After"]
    assert api.get(f"/v1/sandboxes/{sandbox_id}").json()["state"] == "destroying"
    assert api.delete(f"/v1/sandboxes/{sandbox_id}?wait=true").status_code == 200


def test_destroy_ends_an_establishment_that_is_under_way(api: Client, here: Installation, tmp_path: Path) -> None:
    """Promise 4: from every state."""
    with held(here) as backend:
        sandbox_id = api.post("/v1/sandboxes", json=FAKE).json()["id"]
        backend.begun.wait(5)
        answer = api.delete(f"/v1/sandboxes/{sandbox_id}?wait=true")
    assert (answer.status_code, answer.json()["state"]) == (200, "destroyed")
    assert left_over(tmp_path) == []


def test_destroy_of_creates_that_still_wait_for_their_turn(api: Client, here: Installation, tmp_path: Path) -> None:
    """Promise 4: what was begun and has not run yet is destroyed too, and never made."""
    with held(here) as backend:
        ids = [api.post("/v1/sandboxes", json=FAKE).json()["id"] for _ in range(20)]
        backend.begun.wait(5)
        assert {api.delete(f"/v1/sandboxes/{sandbox_id}").status_code for sandbox_id in ids} == {202}
        for sandbox_id in ids:
            settled(api, sandbox_id, "destroyed")
    assert left_over(tmp_path) == []


def test_what_is_unwanted_before_its_turn_is_never_made(here: Installation, faults: Faults) -> None:
    begun = here.manager.begin(here.manager.plan(Request(profile="profile.fake")))
    assert isinstance(begun, PendingCreate)
    here.manager.request_destroy(begun.record.id)
    with pytest.raises(Conflict):
        here.manager.carry_out(here.manager.plan(begun.record.request), begun)
    assert "provision" not in faults.seen
    assert here.manager.destroy(begun.record.id).state == "destroyed"


def test_a_sandbox_that_is_not_there_is_404(api: Client) -> None:
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", "/recreate"), ("GET", "/leases"), ("POST", "/leases"),
    ):  # fmt: skip
        answer = api.request(method, f"/v1/sandboxes/aaaaaaaaaaaa{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, path)


def test_a_unique_prefix_or_a_name_will_do(api: Client) -> None:
    document = api.post("/v1/sandboxes?wait=true", json={**FAKE, "name": "by-name"}).json()
    assert api.get(f"/v1/sandboxes/{document['id'][:6]}").json()["id"] == document["id"]
    assert api.get("/v1/sandboxes/by-name").json()["id"] == document["id"]


def test_list_filters_by_state_profile_and_labels(api: Client) -> None:
    one = api.post("/v1/sandboxes?wait=true", json={**FAKE, "labels": {"team": "a", "tier": "x"}}).json()["id"]
    two = api.post("/v1/sandboxes?wait=true", json={**FAKE, "labels": {"team": "a"}}).json()["id"]
    gone = api.post("/v1/sandboxes?wait=true", json=FAKE).json()["id"]
    api.delete(f"/v1/sandboxes/{gone}?wait=true")

    def ids(query: str) -> list[str]:
        return [document["id"] for document in api.get(f"/v1/sandboxes?{query}").json()["sandboxes"]]

    assert ids("") == [one, two]
    assert ids("label=team=a&label=tier=x") == [one]
    assert ids("profile=profile.fake") == [one, two]
    assert ids("profile=profile.other") == []
    assert ids("state=ready&state=failed") == [one, two]
    assert ids("state=destroyed") == [gone]
    assert ids("all=true") == [one, two, gone]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "state=gone", "cursor=???", "cursor=YWJj", "label=x", "lables=a=b"]
)
def test_a_wrong_query_is_422(shared_api: Client, query: str) -> None:
    assert shared_api.get(f"/v1/sandboxes?{query}").status_code == 422


def test_pages_hold_each_sandbox_once_whatever_happens_in_between(api: Client) -> None:
    made = [api.post("/v1/sandboxes?wait=true", json=FAKE).json()["id"] for _ in range(5)]
    seen: list[str] = []
    query = "limit=2"
    for step in range(10):
        page = api.get(f"/v1/sandboxes?{query}").json()
        seen += [document["id"] for document in page["sandboxes"]]
        if step == 0:
            api.delete(f"/v1/sandboxes/{seen[0]}?wait=true")
            made.append(api.post("/v1/sandboxes?wait=true", json=FAKE).json()["id"])
        if page["next_cursor"] is None:
            break
        query = f"limit=2&cursor={page['next_cursor']}"
    assert seen == made


def test_extend_ttl_lets_it_live_longer(api: Client, here: Installation) -> None:
    sandbox_id = api.post("/v1/sandboxes?wait=true", json=FAKE).json()["id"]
    before = here.manager.get(sandbox_id).expires_at
    answer = api.post(f"/v1/sandboxes/{sandbox_id}/extend-ttl", json={"duration": "1h"})
    assert answer.status_code == 200
    assert before is not None
    assert here.manager.get(sandbox_id).expires_at == before + 3600
    assert api.post(f"/v1/sandboxes/{sandbox_id}/extend-ttl", json={"duration": "4h"}).status_code == 422
    assert api.post(f"/v1/sandboxes/{sandbox_id}/extend-ttl", json={}).status_code == 422
    api.delete(f"/v1/sandboxes/{sandbox_id}?wait=true")
    assert api.post(f"/v1/sandboxes/{sandbox_id}/extend-ttl", json={"duration": 60}).status_code == 409


def test_set_ttl_lets_it_end_sooner(api: Client, here: Installation) -> None:
    made = api.post("/v1/sandboxes?wait=true", json=FAKE).json()
    answer = api.post(f"/v1/sandboxes/{made['id']}/set-ttl", json={"ttl": "10m"})
    assert answer.status_code == 200
    assert made["ready_at"] < answer.json()["expires_at"] < made["expires_at"]
    assert api.post(f"/v1/sandboxes/{made['id']}/set-ttl", json={"ttl": "5h"}).status_code == 422
    assert api.post(f"/v1/sandboxes/{made['id']}/set-ttl", json={"duration": "1h"}).status_code == 422
    here.manager.destroy(made["id"])
    assert api.post(f"/v1/sandboxes/{made['id']}/set-ttl", json={"ttl": 60}).status_code == 409


def test_waiting_requests_do_not_starve_short_ones(api: Client, here: Installation) -> None:
    """Forty callers that wait for their sandboxes hold no thread that a `get` needs."""
    with held(here) as backend:
        waiting = [
            threading.Thread(target=api.post, args=("/v1/sandboxes?wait=true",), kwargs={"json": FAKE})
            for _ in range(40)
        ]
        for thread in waiting:
            thread.start()
        eventually(lambda: len(here.manager.list()) == 40, within=20, what="all are begun")
        assert api.get("/v1/sandboxes?limit=1").status_code == 200
        assert api.get("/readyz").status_code == 200
        backend.go_on.set()
        for thread in waiting:
            thread.join(30)
    states = {record.state for record in here.manager.list()}
    assert states == {"ready"}


def test_the_documents_are_those_of_the_command_line(api: Client, here: Installation) -> None:
    document = api.post("/v1/sandboxes?wait=true", json=FAKE).json()
    of_manager = here.manager.document(here.manager.get(document["id"]))
    assert document == msgspec.json.decode(msgspec.json.encode(of_manager))


@pytest.mark.parametrize("query", ["", "?wait=true"])
def test_a_repository_that_the_policy_refuses_is_refused_with_all_that_it_asks_for(tmp_path: Path, query: str) -> None:
    """At once, and it leaves no record: it was taken, and failed then."""
    repo = tmp_path / "hostile"
    repo.mkdir()
    (repo / "compose.yaml").write_text(
        "services:\n  a: {image: nginx, privileged: true}\n  b: {image: nginx, gpus: all}\n"
    )
    lay_out(tmp_path, config=f"api: {{allowed_roots: ['{tmp_path}']}}\n")
    asked = {"profile": "profile.compose-e2e", "inputs": {"repo": str(repo)}}
    with called(installed(tmp_path)) as api:
        answer = api.post(f"/v1/sandboxes{query}", json=asked)
        error = answer.json()
        assert (answer.status_code, error["code"], error["outcome"]) == (403, "denied", "failed")
        found = [(one["file"], one["line"], one["path"], one["grant"]) for one in error["details"]["violations"]]
        assert found == [
            ("compose.yaml", 2, "services.a.privileged", "privileged"), ("compose.yaml", 3, "services.b.gpus", None),
        ]  # fmt: skip
        assert "grants: [privileged]" in error["hint"]
        assert api.get("/v1/sandboxes?all=true").json()["sandboxes"] == []
