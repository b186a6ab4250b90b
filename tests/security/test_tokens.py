"""Consumers with tokens, who try to see, touch and spend what is another's (promise 33)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from httpx import Client

from sandboxer.bootstrap import Installation
from sandboxer.errors import Denied, Invalid, NotConfigured
from sandboxer.manager.access import Principal
from sandboxer.manager.tokens import TokenRequest, TokenVerifier
from sandboxer.models import Grant
from tests.api.serving import Served, serving
from tests.api.tokens import bearing, made, token
from tests.cli.running import Command
from tests.installations import installed, lay_out

UNKNOWN = "zzzzzzzzzzzz"


@dataclass
class World:
    """A server, and three who call it: `ann` and `bob` may use it, `root` may do everything."""

    here: Installation
    server: Served
    ann: Client
    bob: Client
    root: Client


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    here = installed(tmp_path_factory.mktemp("tokens"))
    with (
        serving(here) as server,
        bearing(server, token(here, "use", "agt:ann").token) as ann,
        bearing(server, token(here, "use", "agt:bob").token) as bob,
        bearing(server, token(here, "admin").token) as root,
    ):
        yield World(here=here, server=server, ann=ann, bob=bob, root=root)


@pytest.fixture(scope="module")
def hers(world: World) -> dict[str, Any]:
    """A sandbox of Ann's, with a name and a lease."""
    return made(world.ann, name="anns-own", labels={"team": "red"})


def said(answer: Any, *names: str) -> str:
    """What an answer says, without the words that the caller chose."""
    text: str = answer.text
    for name in names:
        text = text.replace(name, "NAME")
    return text


VERBS: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("DELETE", "", None),
    ("DELETE", "?wait=true", None),
    ("POST", "/recreate", None),
    ("POST", "/extend-ttl", {"duration": "1h"}),
    ("POST", "/exec", {"argv": ["true"]}),
    ("GET", "/leases", None),
    ("POST", "/leases", {"holder": "x"}),
    ("GET", "/leases/LEASE", None),
    ("PUT", "/leases/LEASE", {"duration": "1m"}),
    ("POST", "/leases/LEASE", {"duration": "1m"}),
    ("DELETE", "/leases/LEASE", None),
]


@pytest.mark.parametrize(("method", "rest", "body"), VERBS, ids=lambda value: str(value)[:30])
def test_anothers_sandbox_looks_like_one_that_is_not_there(
    world: World, hers: dict[str, Any], method: str, rest: str, body: Any
) -> None:
    lease = world.ann.post(f"/v1/sandboxes/{hers['id']}/leases", json={"holder": "ann"}).json()["id"]
    try:
        for name in (hers["id"], "anns-own", hers["id"][:6]):
            wanted = rest.replace("LEASE", lease)
            foreign = world.bob.request(method, f"/v1/sandboxes/{name}{wanted}", json=body)
            nothing = world.bob.request(method, f"/v1/sandboxes/{UNKNOWN}{wanted}", json=body)
            assert foreign.status_code == nothing.status_code == 404, foreign.text
            assert said(foreign, name, lease) == said(nothing, UNKNOWN, lease)
            assert foreign.headers.keys() == nothing.headers.keys()
        assert world.ann.get(f"/v1/sandboxes/{hers['id']}").json()["state"] == "active"
    finally:
        world.ann.delete(f"/v1/sandboxes/{hers['id']}/leases/{lease}")


def test_a_list_shows_ones_own_whatever_is_asked_for(world: World, hers: dict[str, Any]) -> None:
    his = made(world.bob)
    for query in ("", "?all=true", "?label=team=red", "?state=ready&state=active", "?profile=profile.fake", "?limit=1"):
        found = {one["id"] for one in world.bob.get(f"/v1/sandboxes{query}").json()["sandboxes"]}
        assert hers["id"] not in found, query
    assert his["id"] in {one["id"] for one in world.bob.get("/v1/sandboxes").json()["sandboxes"]}
    everything = {one["id"] for one in world.root.get("/v1/sandboxes").json()["sandboxes"]}
    assert {hers["id"], his["id"]} <= everything


def test_no_cursor_leads_to_anothers(world: World, hers: dict[str, Any]) -> None:
    """A cursor is a place in time: whoever writes one for oneself still sees one's own."""
    for at in (0.0, 1.0, 1e9):
        text = f"{at.hex()} {hers['id']}"
        forged = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        answer = world.bob.get(f"/v1/sandboxes?all=true&cursor={forged}")
        assert answer.status_code == 200
        assert hers["id"] not in answer.text


def test_events_usage_and_credits_are_ones_own(world: World, hers: dict[str, Any]) -> None:
    his = made(world.bob)
    for path in ("/v1/events?limit=10000", "/v1/usage", "/v1/credits"):
        assert hers["id"] not in world.bob.get(path).text, path
        assert "agt:ann" not in world.bob.get(path).text, path
    assert his["id"] in world.bob.get("/v1/events?limit=10000").text
    assert hers["id"] in world.root.get("/v1/events?limit=10000").text


def test_who_asks_is_what_the_token_says(world: World) -> None:
    for consumer in ("agt:ann", "adm:root", {"actor": "agt", "name": "ann"}):
        found = made(world.bob, consumer=consumer)
        assert found["consumer"] == {"actor": "agt", "name": "bob"}
        world.bob.delete(f"/v1/sandboxes/{found['id']}")
    assert made(world.root, consumer="agt:ann")["consumer"] == {"actor": "agt", "name": "ann"}


def test_a_name_that_is_taken_names_no_owner(world: World, hers: dict[str, Any]) -> None:
    answer = world.bob.post("/v1/sandboxes", json={"profile": "profile.fake", "name": "anns-own"})
    assert answer.status_code == 409
    assert hers["id"] not in answer.text
    assert "ann" not in answer.text.replace("anns-own", "")
    own = world.ann.post("/v1/sandboxes", json={"profile": "profile.fake", "name": "anns-own"})
    assert own.status_code == 409
    assert own.json()["sandbox_id"] == hers["id"]


def test_an_idempotency_key_is_each_consumers_own(world: World) -> None:
    body, key = {"profile": "profile.fake"}, {"Idempotency-Key": "the-same"}
    hers = world.ann.post("/v1/sandboxes?wait=true", json=body, headers=key).json()
    his = world.bob.post("/v1/sandboxes?wait=true", json=body, headers=key)
    assert his.status_code == 201
    assert "idempotent-replayed" not in his.headers
    assert his.json()["id"] != hers["id"]
    other = world.bob.post("/v1/sandboxes", json={**body, "labels": {"a": "b"}}, headers=key)
    assert other.status_code == 409
    assert hers["id"] not in other.text
    again = world.ann.post("/v1/sandboxes?wait=true", json=body, headers=key)
    assert again.json()["id"] == hers["id"]
    assert again.headers["idempotent-replayed"] == "true"


def test_the_beginning_of_an_id_tells_nothing_of_others(tmp_path: Path) -> None:
    """Ten of hers and one of his: what fits hers too is not ambiguous for him."""
    here = installed(tmp_path)
    with (
        serving(here) as server,
        bearing(server, token(here, "use", "agt:ann").token) as ann,
        bearing(server, token(here, "use", "agt:bob").token) as bob,
    ):
        his = made(bob)
        start = his["id"][:4]
        # one of hers that begins alike, put where only the store sees it
        record = here.store.get(made(ann)["id"])
        assert record is not None
        import msgspec

        from sandboxer.store.base import Change

        twin = msgspec.structs.replace(record, id=start + "zzzzzzzz", name=None)
        here.store.update(twin.id, lambda _now, _others: Change(record=twin))
        assert bob.get(f"/v1/sandboxes/{start}").json()["id"] == his["id"]
        assert ann.get(f"/v1/sandboxes/{start}").json()["id"] == twin.id
        assert bob.get(f"/v1/sandboxes/{twin.id[:6]}").status_code == 404


def test_a_name_that_is_the_beginning_of_anothers_id_hides_it_from_nobody_else(world: World) -> None:
    his = made(world.bob)
    beginning = his["id"][:5]
    answer = world.ann.post("/v1/sandboxes?wait=true", json={"profile": "profile.fake", "name": beginning})
    assert answer.status_code == 201
    assert his["id"] not in answer.text
    assert "bob" not in answer.text
    assert world.bob.get(f"/v1/sandboxes/{beginning}").json()["id"] == his["id"]
    assert world.ann.get(f"/v1/sandboxes/{beginning}").json()["id"] == answer.json()["id"]


def test_a_name_does_not_spell_out_anothers_id(world: World) -> None:
    """A create that is refused where a name is the beginning of an id would tell all ids, letter by letter."""
    hers = made(world.ann)
    for length in (4, 8, 11):
        text = hers["id"][:length]
        assert world.bob.post("/v1/sandboxes", json={"profile": "profile.fake", "name": text}).status_code == 202
        assert world.root.get(f"/v1/sandboxes/{text}").status_code == 409, "to who sees both it means neither"
    for who in (world.ann, world.root):
        taken = who.post("/v1/sandboxes", json={"profile": "profile.fake", "name": hers["id"][:6]})
        assert taken.status_code == 409, "among one's own it is still refused"


def test_a_token_for_one_profile_makes_no_other(world: World) -> None:
    text = token(world.here, "use", "agt:cleo", profiles=("profile.native",)).token
    with bearing(world.server, text) as cleo:
        for path in ("/v1/sandboxes", "/v1/route/explain"):
            for profile in ("profile.fake", "profile.not-there"):
                answer = cleo.post(path, json={"profile": profile})
                assert answer.status_code == 403
                assert answer.json()["code"] == "denied"
        assert [one["id"] for one in cleo.get("/v1/profiles").json()["profiles"]] == ["profile.native"]


def test_an_admin_of_a_consumer_sees_everything_and_makes_its_own(world: World, hers: dict[str, Any]) -> None:
    text = token(world.here, "admin", "adm:chief").token
    with bearing(world.server, text) as chief:
        assert chief.get(f"/v1/sandboxes/{hers['id']}").status_code == 200
        assert made(chief, consumer="agt:ann")["consumer"] == {"actor": "adm", "name": "chief"}


def test_what_an_admin_makes_anew_stays_its_consumers(world: World) -> None:
    hers = made(world.ann)
    text = token(world.here, "admin", "adm:chief").token
    with bearing(world.server, text) as chief:
        again = chief.post(f"/v1/sandboxes/{hers['id']}/recreate?wait=true").json()
    assert again["consumer"] == {"actor": "agt", "name": "ann"}
    assert world.ann.get(f"/v1/sandboxes/{again['id']}").status_code == 200


# -- tokens themselves ------------------------------------------------------------------------------------------------


def status(server: Served, *headers: str, path: str = "/v1/sandboxes") -> int:
    lines = "".join(f"{line}\r\n" for line in ("Host: 127.0.0.1", "Connection: close", *headers))
    return server.get(path, lines).status


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[tuple[Installation, Served]]:
    here = installed(tmp_path)
    with serving(here) as server:
        yield here, server


def test_the_first_token_closes_a_running_server_and_its_end_is_at_once(fresh: tuple[Installation, Served]) -> None:
    here, server = fresh
    other = installed(here.paths.data.parent)  # as another process: the command
    assert status(server) == 200
    made_ = token(other, "admin")
    assert status(server) == 401
    assert status(server, path="/healthz") == 200
    assert status(server, f"Authorization: Bearer {made_.token}") == 200
    other.manager.revoke_token(made_.id)
    assert status(server, f"Authorization: Bearer {made_.token}") == 401


def test_a_token_whose_time_is_over_counts_no_more_and_opens_nothing(fresh: tuple[Installation, Served]) -> None:
    here, server = fresh
    made_ = token(here, "use", "agt:ann", ttl=3600)
    assert status(server, f"Authorization: Bearer {made_.token}") == 200
    file = here.manager.services.tokens.path
    document = json.loads(file.read_bytes())
    document["tokens"][0]["expires_at"] = 1.0
    document["revision"] += 1
    file.write_text(json.dumps(document))
    assert status(server, f"Authorization: Bearer {made_.token}") == 401
    assert status(server) == 401


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema_version":1}',
        b'{"schema_version":9,"install":"x","revision":1,"tokens":[]}',
        b"\xff",
    ],
)
def test_a_list_of_tokens_that_cannot_be_read_lets_nobody_in(fresh: tuple[Installation, Served], broken: bytes) -> None:
    here, server = fresh
    text = token(here, "admin").token
    here.manager.services.tokens.path.write_bytes(broken)
    for headers in ([], [f"Authorization: Bearer {text}"]):
        assert status(server, *headers) == 500
    assert status(server, path="/healthz") == 200
    assert here.manager.services.tokens.path.read_bytes() == broken


def test_a_token_that_somebody_edited_to_be_for_no_consumer_sees_nothing(
    fresh: tuple[Installation, Served],
) -> None:
    here, server = fresh
    text = token(here, "read", "agt:ann").token
    file = here.manager.services.tokens.path
    file.write_bytes(file.read_bytes().replace(b'"agt:ann"', b"null").replace(b'"revision":1', b'"revision":2'))
    assert status(server, f"Authorization: Bearer {text}") == 500
    nobody = here.manager.acting(Principal(grant=Grant(role="use")))
    for look in (nobody.list, nobody.events, nobody.usage, nobody.credits, lambda: nobody.get("anything")):
        with pytest.raises(Denied):
            look()


def test_the_list_of_another_installation_lets_nobody_in(fresh: tuple[Installation, Served], tmp_path: Path) -> None:
    here, server = fresh
    token(here, "admin")
    stranger = installed(tmp_path / "elsewhere")
    text = token(stranger, "admin").token
    here.manager.services.tokens.path.write_bytes(stranger.manager.services.tokens.path.read_bytes())
    assert status(server, f"Authorization: Bearer {text}") == 500


def test_only_one_header_of_the_right_form_carries_a_token(fresh: tuple[Installation, Served]) -> None:
    here, server = fresh
    text = token(here, "admin").token
    assert status(server, f"authorization: bearer {text}") == 200
    assert status(server, f"Authorization: BEARER {text}") == 200
    for headers in (
        [f"Authorization: Bearer {text}", f"Authorization: Bearer {text}"],
        [f"Authorization: Bearer {text}", "Authorization: Bearer x"],
        [f"Authorization: Basic {text}"],
        [f"Authorization: {text}"],
        [f"Authorization: Bearer {text}x"],
        [f"Authorization: Bearer {text[:-1]}"],
        [f"Authorization: Bearer {text.lower()}"],
        [f"Authorization: Bearer {here.manager.list_tokens()[0].id}"],
        [f"X-Authorization: Bearer {text}"],
        [f"Cookie: token={text}"],
    ):
        assert status(server, *headers) == 401, headers
    digest = json.loads(here.manager.services.tokens.path.read_bytes())["tokens"][0]["digest"]
    assert status(server, f"Authorization: Bearer {digest}") == 401
    for path in (f"/v1/sandboxes?token={text}", f"/v1/sandboxes?access_token={text}", f"/v1/sandboxes/{text}"):
        assert status(server, path=path) == 401
    assert status(server, f"Authorization: Bearer {'x' * 60_000}") in (400, 401, 431)


def test_a_token_is_kept_as_a_hash_in_a_private_file_and_told_once(fresh: tuple[Installation, Served]) -> None:
    here, server = fresh
    made_ = token(here, "admin")
    with bearing(server, made_.token) as root:
        created = root.post("/v1/tokens", json={"name": "two", "role": "read", "consumer": "agt:ann"})
        assert created.status_code == 201
        second = created.json()["token"]
        # where somebody might look for one, or send one by mistake
        root.get(f"/v1/sandboxes/{second}")
        root.delete(f"/v1/sandboxes/{second}")
        root.delete(f"/v1/tokens/{second}")
        root.post("/v1/sandboxes", json={"profile": second})
        listed = root.get("/v1/tokens").text + root.get("/v1/audit").text + root.get("/v1/events").text
    for text in (made_.token, second):
        assert text not in listed
        for file in here.paths.data.rglob("*"):
            assert not file.is_file() or text.encode() not in file.read_bytes(), file
    assert here.manager.services.tokens.path.stat().st_mode & 0o777 == 0o600


def test_a_token_that_the_path_holds_is_not_repeated_in_what_an_error_says(
    fresh: tuple[Installation, Served],
) -> None:
    here, server = fresh
    text = token(here, "admin").token
    with bearing(server, text) as root:
        for path in (f"/v1/sandboxes/{text}", f"/{text}", f"/v1/tokens/{text}"):
            assert text not in root.request("DELETE", path).text
            assert text not in Client().get(f"http://127.0.0.1:{server.port}{path}").text


def test_tokens_of_the_configuration_count_like_the_others(tmp_path: Path) -> None:
    config = (
        f"hosts:\n  local: {{work_dir: {tmp_path}/work}}\n"
        "api:\n  token: the-old-one\n  tokens:\n"
        "    - {name: ci, ref: 'env:CI_TOKEN', role: use, consumer: 'atm:ci'}\n"
        "    - {name: past, ref: 'env:PAST_TOKEN', role: admin, expires: '2020-01-01T00:00:00Z'}\n"
    )
    lay_out(tmp_path, config=config)
    here = installed(tmp_path, CI_TOKEN="ci-token-ci-token", PAST_TOKEN="past-token-past")
    with serving(here) as server:
        assert status(server) == 401
        assert status(server, "Authorization: Bearer the-old-one", path="/v1/tokens") == 200
        assert status(server, "Authorization: Bearer past-token-past") == 401
        assert status(server, "Authorization: Bearer ci-token-ci-token", path="/v1/tokens") == 403
        with bearing(server, "ci-token-ci-token") as ci:
            assert made(ci, consumer="adm:ops")["consumer"] == {"actor": "atm", "name": "ci"}
        # the administrator of the configuration is let in whatever has become of the file
        here.manager.services.tokens.path.write_bytes(b"{")
        assert status(server, "Authorization: Bearer the-old-one") == 200
        assert status(server, "Authorization: Bearer sbx_unknown") == 500


def test_fifty_revocations_and_calls_at_once_leave_none_that_counts(fresh: tuple[Installation, Served]) -> None:
    here, server = fresh
    keep = token(here, "admin").token
    many = [token(here, "read", "agt:ann") for _ in range(25)]

    def end(one: Any) -> int:
        here.manager.revoke_token(one.id)
        return status(server, f"Authorization: Bearer {one.token}")

    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(end, many)) == {401}
    assert status(server, f"Authorization: Bearer {keep}") == 200


def test_the_doctor_says_that_nobody_is_let_in_and_what_to_do(tmp_path: Path) -> None:
    command = Command(tmp_path)
    made_ = command("tokens", "create", "one", "--role", "admin", "--json").document
    assert made_["token"].startswith("sbx_")
    file = tmp_path / "data" / "tokens.json"
    file.write_bytes(b"{")
    answer = command("doctor", "--json")
    assert answer.status == 13
    (found,) = [one for one in answer.document["findings"] if one["subject"] == "tokens"]
    assert str(file) in found["hint"]
    assert command("tokens", "list", "--json").error["code"] == "store_corrupt"
    assert file.read_bytes() == b"{"


def test_the_command_makes_lists_and_ends_tokens(tmp_path: Path) -> None:
    command = Command(tmp_path)
    words = ("--role", "use", "--consumer", "agt:ann", "--profile", "profile.fake", "--budget", "2.50", "--ttl", "1h")
    made_ = command("tokens", "create", "ann", *words, "--json").document
    listed = command("tokens", "list", "--json").document["tokens"]
    shown = {key: value for key, value in made_.items() if key != "token"}
    assert listed == [shown]
    assert (shown["role"], shown["consumer"], shown["profiles"], shown["budget"], shown["state"]) == (
        "use", "agt:ann", ["profile.fake"], "2.5", "live",
    )  # fmt: skip
    assert made_["token"] not in command("tokens", "list").stdout
    assert command("tokens", "revoke", made_["id"], "--json").document["state"] == "revoked"
    assert command("tokens", "revoke", made_["id"], "--json").status == 0
    assert command("tokens", "revoke", "tok-nothing", "--json").status == 3
    assert command("tokens", "revoke", "ann", "--json").status == 3  # a name that no token has any more


@pytest.mark.parametrize(
    "wanted",
    [
        TokenRequest(name="one", role="use"),
        TokenRequest(name="one", role="read"),
        TokenRequest(name="one", role="root"),
        TokenRequest(name="one", role="use", consumer="ann"),
        TokenRequest(name="one", role="use", consumer="xyz:ann"),
        TokenRequest(name="one", role="admin", budget="-1"),
        TokenRequest(name="one", role="admin", budget="much"),
        TokenRequest(name="bad name", role="admin"),
        TokenRequest(name="", role="admin"),
    ],
)
def test_a_token_that_makes_no_sense_is_not_made(tmp_path: Path, wanted: TokenRequest) -> None:
    manager = installed(tmp_path).manager
    with pytest.raises(Invalid):
        manager.create_token(wanted)
    assert manager.list_tokens() == []


def test_the_command_refuses_words_that_make_no_sense(tmp_path: Path) -> None:
    command = Command(tmp_path)
    assert command("tokens", "create", "one", "--json").status == 2
    assert command("tokens", "create", "one", "--role", "admin", "--ttl", "0", "--json").status == 2
    assert command("tokens", "create", "one", "--role", "admin", "--profile", "profile.no", "--json").status == 3


def test_a_dry_run_tells_of_the_quota(tmp_path: Path) -> None:
    lay_out(tmp_path, config="quotas: {'*': {live: 0}}\n")
    answer = Command(tmp_path)("create", "--profile", "profile.native", "--dry-run", "--json")
    assert answer.status == 8
    assert answer.error["code"] == "unavailable"


@pytest.mark.parametrize(
    "config",
    [
        "api: {tokens: [{name: a, ref: 'env:A', role: use}]}",
        "api: {tokens: [{name: a, ref: 'plain-value', role: admin}]}",
        "api: {tokens: [{name: a, ref: 'env:A', role: owner}]}",
        "api: {tokens: [{name: a, ref: 'env:A', role: admin, expires: soon}]}",
        "api: {tokens: [{name: a, ref: 'env:A', role: admin}, {name: a, ref: 'env:B', role: admin}]}",
        "api: {tokens: [{name: a, ref: 'env:A', role: admin, budget: lots}]}",
        "api: {tokens: [{name: a, token: x, role: admin}]}",
        "quotas: {ann: {live: 1}}",
        "quotas: {'agt:ann': {live: -1}}",
        "quotas: {'agt:ann': {lives: 1}}",
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_and_quotes_no_value(tmp_path: Path, config: str) -> None:
    lay_out(tmp_path, config=config + "\n")
    with pytest.raises(Invalid) as refused:
        installed(tmp_path)
    assert "plain-value" not in refused.value.message + refused.value.hint


def test_a_server_whose_token_cannot_be_read_does_not_start(tmp_path: Path) -> None:
    lay_out(tmp_path, config="api: {tokens: [{name: ci, ref: 'env:NOT_THERE', role: admin}]}\n")
    with pytest.raises(NotConfigured, match=r"api\.tokens\.ci"):
        TokenVerifier(installed(tmp_path).manager.services)
