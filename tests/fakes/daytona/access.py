"""Ways into a sandbox of the fake Daytona: SSH tokens, and previews of ports."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from urllib.request import Request as Outward
from urllib.request import urlopen

from tests.fakes.daytona.documents import instant, refused
from tests.fakes.daytona.state import DaytonaState, FakeMachine, new_id
from tests.fakes.server import Reply, Request


class AccessRoutes:
    """What lets somebody in. `ssh_tokens` are those that were given and not taken back: the sandbox, and their end."""

    def __init__(self, estate: DaytonaState, *, url: Callable[[], str]) -> None:
        self.estate, self._url = estate, url
        self.ssh_tokens: dict[str, tuple[str, float]] = {}

    def ssh(self, request: Request, machine: FakeMachine, rest: str) -> Reply:
        """A new token."""
        now = self.estate.clock()
        ends = now + 60 * float(request.param("expiresInMinutes") or 60)
        token = f"ssh{uuid.uuid4().hex}"
        self.ssh_tokens[token] = (machine.id, ends)
        return Reply(
            json={
                "id": new_id(),
                "sandboxId": machine.id,
                "token": token,
                "expiresAt": instant(ends),
                "createdAt": instant(now),
                "updatedAt": instant(now),
                "sshCommand": f"ssh -p 2222 {token}@127.0.0.1",
            }
        )

    def no_ssh(self, request: Request, machine: FakeMachine, rest: str) -> None:
        """Take one back, or all."""
        told = request.param("token")
        for token, (whose, _) in list(self.ssh_tokens.items()):
            if whose == machine.id and told in (None, token):
                del self.ssh_tokens[token]

    def validate(self, request: Request) -> Reply:
        """Whether a token lets in."""
        whose, ends = self.ssh_tokens.get(request.param("token") or "", ("", 0.0))
        return Reply(json={"valid": ends > self.estate.clock(), "sandboxId": whose})

    def port(self, request: Request, machine: FakeMachine, rest: str) -> Reply:
        """The address of a port."""
        port, _, what = rest.partition("/")
        if what == "preview-url":
            url = f"{self._url()}/preview/{machine.id}/{port}"
            return Reply(json={"sandboxId": machine.id, "url": url, "token": machine.preview})
        token = uuid.uuid4().hex
        url = f"{self._url()}/signed/{token}"
        return Reply(json={"sandboxId": machine.id, "port": int(port), "token": token, "url": url})

    def preview(self, request: Request) -> Reply:
        """A sandbox's port, for those who have its token. (The network of a fake sandbox is the host's.)"""
        with self.estate.held():
            machine = self.estate.machines.get(request.groups["sandbox"])
            if machine is None or machine.state != "started":
                raise refused(request, 404, "sandbox not found", source="DAYTONA_PROXY")
            if not machine.public and request.headers.get("x-daytona-preview-token") != machine.preview:
                raise refused(request, 401, "unauthorized", source="DAYTONA_PROXY")
        address = f"http://127.0.0.1:{int(request.groups['port'])}/{request.groups['rest'] or ''}"
        with urlopen(Outward(address), timeout=5) as answer:
            return Reply(status=answer.status, body=answer.read())
