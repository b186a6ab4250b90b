"""Find the gateway for logins over SSH: Daytona's takes a token as the user's name.

The token is a credential, so it is never stored: what `reachability` tells is where the gateway is, and how a token is
had with the key. The one that is made here, to learn the gateway's address, is taken back at once.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

from sandboxer.errors import BackendError
from sandboxer.extensions.daytona.client import DaytonaClient
from sandboxer.http import segment
from sandboxer.models import Value
from sandboxer.secrets import Secret
from sandboxer.timing import Deadline

PORT: Final = 22
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")


class SshGateway(Value, frozen=True, kw_only=True):
    """The address of the gateway."""

    host: str
    port: int


def access(cloud: DaytonaClient, name: str, deadline: Deadline, *, minutes: int) -> tuple[SshGateway, Secret]:
    """Make a token that lasts `minutes`, and say where it is used."""
    answer = cloud.api.call(
        "POST",
        f"/sandbox/{segment(name)}/ssh-access",
        deadline,
        params={"expiresInMinutes": minutes},
        expect=(200, 201),
    )
    document = answer.json()
    token = document.get("token") if isinstance(document, dict) else None
    if not isinstance(token, str) or not token:
        raise BackendError("Daytona gave no token for SSH", hint="leave out options.ssh, and use `sandboxer exec`")
    secret = Secret(token)
    return gateway(document.get("sshCommand"), token), secret


def gateway(command: Any, token: str) -> SshGateway:
    """Parse host and port of `ssh -p 2222 TOKEN@host`. Pure. Raises BackendError (which does not quote the command)."""
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        words = []
    host, port = None, PORT
    for number, word in enumerate(words):
        if word == "-p" and number + 1 < len(words) and words[number + 1].isdigit():
            port = int(words[number + 1])
        elif word.startswith(f"{token}@"):
            host = word.removeprefix(f"{token}@")
    if host is None or not _HOST.fullmatch(host) or not 0 < port < 65536:
        raise BackendError("Daytona tells a way over SSH that is not understood", hint="use `sandboxer exec`")
    return SshGateway(host=host, port=port)


def find_gateway(cloud: DaytonaClient, name: str, deadline: Deadline) -> SshGateway:
    """Find the gateway, without leaving a token behind."""
    found, token = access(cloud, name, deadline, minutes=1)
    cloud.api.call(
        "DELETE",
        f"/sandbox/{segment(name)}/ssh-access",
        deadline,
        params={"token": token.reveal()},
        retry="safe",
        expect=(200, 204, 404),
    )
    return found
