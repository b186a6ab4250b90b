"""Clients that carry tokens, for the tests of who may do what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from httpx import Client

from sandboxer.bootstrap import Installation
from sandboxer.manager.tokens import NewToken, TokenRequest
from tests.api.serving import Served


def token(here: Installation, role: str, consumer: str | None = None, **more: Any) -> NewToken:
    """Make a token, as the command does."""
    name = f"{role}-{(consumer or 'nobody').partition(':')[2] or 'nobody'}"
    return here.manager.create_token(TokenRequest(name=name, role=role, consumer=consumer, **more))


@contextmanager
def bearing(server: Served, text: str) -> Iterator[Client]:
    """A client that sends this token."""
    headers = {"Authorization": f"Bearer {text}"}
    with Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60, headers=headers) as client:
        yield client


def made(client: Client, **body: Any) -> dict[str, Any]:
    """A sandbox of the fake profile, ready."""
    answer = client.post("/v1/sandboxes?wait=true", json={"profile": "profile.fake", **body})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found
