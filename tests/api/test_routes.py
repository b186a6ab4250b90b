"""POST /v1/route/explain."""

from __future__ import annotations

from httpx import Client

from sandboxer.bootstrap import Installation


def test_explain_says_what_would_serve_and_touches_nothing(api: Client, here: Installation) -> None:
    answer = api.post("/v1/route/explain", json={"profile": "profile.fake", "ttl": "30m"})
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["strategy"] == "explicit"
    assert document["chosen"] == {"extension": "ext.fake", "host": "local", "estimate_usd": "0"}
    assert [one["outcome"] for one in document["decisions"]] == ["chosen"]
    assert document["refusal"] is None
    assert here.manager.list(ended=True) == []


def test_explain_answers_200_also_when_a_create_would_be_refused(api: Client) -> None:
    document = api.post("/v1/route/explain", json={"profile": "profile.saas-stub"}).json()
    assert document["chosen"] is None
    assert document["refusal"]["code"] == "insufficient_credits"
    refused = api.post("/v1/sandboxes", json={"profile": "profile.saas-stub"})
    assert refused.status_code == 402
    assert refused.json()["details"]["decisions"] == document["decisions"]


def test_explain_refuses_what_a_create_would(api: Client) -> None:
    assert api.post("/v1/route/explain", json={"profile": "profile.nope"}).status_code == 404
    assert api.post("/v1/route/explain", json={"profil": "profile.fake"}).status_code == 422
    assert api.post("/v1/route/explain", json={"profile": "profile.fake", "host": "192.0.2.1"}).status_code == 403
    assert api.post("/v1/route/explain", json={"profile": "profile.fake", "ttl": "9h"}).status_code == 422
    tree = {"profile": "profile.fake", "inputs": {"tree": "/etc"}}
    assert api.post("/v1/route/explain", json=tree).status_code == 403
    assert api.post("/v1/route/explain").status_code == 200
