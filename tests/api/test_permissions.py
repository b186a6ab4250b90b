"""Which role may use which route: one table in the code decides, and the page shows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute
from httpx import Client

from sandboxer.api.app import ROUTES
from sandboxer.api.json_body import JsonRoute
from sandboxer.api.permissions import PERMISSIONS, Permission, allows, permission_of
from sandboxer.models import Role
from tests.api.serving import Served, serving
from tests.api.tokens import bearing, token
from tests.docs.pages import ROOT, bare, table
from tests.installations import installed

ROLES: tuple[Role, ...] = ("read", "use", "admin")


def routes() -> set[tuple[str, str]]:
    found = (route for module in ROUTES for route in module.router.routes)
    return {(method, route.path) for route in found if isinstance(route, APIRoute) for method in route.methods or ()}


def test_every_route_is_in_the_table_and_the_other_way_round() -> None:
    assert routes() - {("GET", "/healthz")} == set(PERMISSIONS) - {("GET", "/openapi.json")}


def test_a_route_that_the_table_does_not_have_is_open_to_nobody() -> None:
    assert permission_of("GET", "/v1/something-new") is None
    assert permission_of("PATCH", "/v1/sandboxes") is None


def test_every_route_asks_the_table() -> None:
    """The check is in the class of the routes: one of another class would be open."""
    every = [route for module in ROUTES for route in module.router.routes]
    assert [route for route in every if not isinstance(route, JsonRoute)] == []


def test_what_changes_something_is_not_for_readers() -> None:
    assert [key for key, right in PERMISSIONS.items() if right.changes and right.role == "read"] == []
    unsafe = {key for key in PERMISSIONS if key[0] != "GET"}
    assert {key for key, right in PERMISSIONS.items() if right.changes} == unsafe - {("POST", "/v1/route/explain")}


def test_the_page_shows_the_table() -> None:
    rows = table(ROOT / "docs" / "api.md", "route", "`read`", "`use`", "`admin`").rows
    shown = {bare(row[0]): tuple(cell == "yes" for cell in row[1:]) for row in rows}
    code: dict[str, tuple[bool, ...]] = {}
    for (method, path), right in PERMISSIONS.items():
        code[f"{method} {path}"] = tuple(allows(role, right) for role in ROLES)
    assert shown == code


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, dict[Role, Client]]]:
    here = installed(tmp_path_factory.mktemp("rights"))
    with serving(here) as served:
        texts = {role: token(here, role, None if role == "admin" else "agt:one").token for role in ROLES}
        with (
            bearing(served, texts["read"]) as read,
            bearing(served, texts["use"]) as use,
            bearing(served, texts["admin"]) as admin,
        ):
            yield served, {"read": read, "use": use, "admin": admin}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("key", "right"), PERMISSIONS.items(), ids=lambda value: str(value)[:60])
def test_a_route_is_open_to_the_roles_of_the_table_and_to_no_other(
    server: tuple[Served, dict[Role, Client]], key: tuple[str, str], right: Permission, role: Role
) -> None:
    """With a body that nobody takes: who may gets as far as 422, and who may not is told nothing of it."""
    method, pattern = key
    path = pattern.format(id="nosuchthing0", lease="l1", host="nowhere", token="tok-none")
    answer = server[1][role].request(method, path, content=b'{"unknown": 1}' if method != "GET" else None)
    if allows(role, right):
        assert answer.status_code not in (401, 403), answer.text
    else:
        assert answer.status_code == 403, answer.text
        assert answer.json()["code"] == "denied"


@pytest.mark.parametrize("key", PERMISSIONS, ids=str)
def test_no_route_is_open_without_a_token(server: tuple[Served, dict[Role, Client]], key: tuple[str, str]) -> None:
    method, pattern = key
    path = pattern.format(id="nosuchthing0", lease="l1", host="nowhere", token="tok-none")
    with Client(base_url=f"http://127.0.0.1:{server[0].port}", timeout=60) as stranger:
        for headers in ({}, {"Authorization": "Bearer sbx_" + "a" * 40}):
            answer = stranger.request(method, path, headers=headers)
            assert answer.status_code == 401, (key, answer.text)
