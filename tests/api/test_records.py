"""POST /v1/sandboxes/{id}/rename and /labels."""

from __future__ import annotations

from httpx import Client

from tests.api.tokens import made


def test_rename(api: Client) -> None:
    record, other = made(api), made(api, name="web")
    answer = api.post(f"/v1/sandboxes/{record['id']}/rename", json={"name": "shop"})
    assert (answer.status_code, answer.json()["name"]) == (200, "shop")
    assert api.get("/v1/sandboxes/shop").json()["id"] == record["id"]
    taken = api.post("/v1/sandboxes/shop/rename", json={"name": "web"})
    assert (taken.status_code, taken.json()["sandbox_id"]) == (409, other["id"])
    assert api.post("/v1/sandboxes/shop/rename", json={"name": "Web"}).status_code == 422
    assert api.post("/v1/sandboxes/shop/rename", json={}).status_code == 422
    assert api.post("/v1/sandboxes/nosuch/rename", json={"name": "x"}).status_code == 404


def test_labels(api: Client) -> None:
    record = made(api, labels={"old": "1", "kept": "yes"})
    path = f"/v1/sandboxes/{record['id']}/labels"
    answer = api.post(path, json={"labels": {"team": "blue", "old": None}})
    assert (answer.status_code, answer.json()["labels"]) == (200, {"kept": "yes", "team": "blue"})
    refused: list[dict[str, object]] = [{}, {"labels": {}}, {"labels": {"a": 1}}, {"labels": {"sandboxer.x": "1"}}]
    for body in refused:
        assert api.post(path, json=body).status_code == 422, body
    assert api.delete(f"/v1/sandboxes/{record['id']}?wait=true").status_code == 200
    assert api.post(path, json={"labels": {"a": "b"}}).status_code == 409
