"""Call Daytona's API, and the toolbox of each sandbox.

The toolbox's address comes out of the API's answers, and the key goes there too. It is sent only to the host of the
API, to a host of the same domain, or to the one that the operator names by DAYTONA_TOOLBOX_URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, Final, Literal, TypeVar

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import BackendError, Denied, NotConfigured, SandboxerError, Unavailable
from sandboxer.extensions.base import Context
from sandboxer.extensions.daytona.errors import api_error
from sandboxer.extensions.daytona.sandbox import DaytonaSandbox, view
from sandboxer.extensions.provider import account, wait
from sandboxer.http import ApiClient, BaseURL, Response, parse_base_url, segment
from sandboxer.secrets import Secret
from sandboxer.timing import Deadline

KEY: Final = "DAYTONA_API_KEY"
DEFAULT_API: Final = "https://app.daytona.io/api"
PAGE: Final = 200
"""Sandboxes on a page of a listing: the most that Daytona gives."""
MAX_PAGES: Final = 5000
_TOLD_TIMES: Final = 3

T = TypeVar("T")


class DaytonaClient:
    """One organization of Daytona, by a context's key and address. Cheap to make. Raises NotConfigured without them."""

    def __init__(self, ctx: Context) -> None:
        key = ctx.secrets.get(KEY)
        if key is None:
            raise NotConfigured("there is no key for Daytona", hint=f"set {KEY}")
        account.check_sendable(key, variable=KEY)
        older = not ctx.endpoints.get("api") and ctx.endpoints.get("server")
        address = ctx.endpoints.get("api") or ctx.endpoints.get("server") or DEFAULT_API
        base = account.usable_address(address, variable="DAYTONA_SERVER_URL" if older else "DAYTONA_API_URL")
        self._key: Secret = key
        self._chosen = ctx.endpoints.get("toolbox")
        self.key = key.fingerprint
        self.api = ApiClient(base.url, name="Daytona", headers=self._headers, refuse=api_error)
        self.base = self.api.base.url

    def _headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._key.reveal()}"}

    def sandbox(self, name: str, deadline: Deadline) -> DaytonaSandbox | None:
        """The sandbox of this name or id; None when Daytona says that there is none. Reads the database, not the index
        that listings come from."""
        answer = self.ask("GET", f"/sandbox/{segment(name)}", deadline, absent_ok=True)
        return None if answer is None else view(answer.json(), asked=answer.asked)

    def create(self, body: Mapping[str, Any], deadline: Deadline) -> DaytonaSandbox:
        """Ask once. Raises what happened; a name that is taken is a BackendError with status 409 in its details."""
        answer = self.api.call("POST", "/sandbox", deadline, json=body, expect=(200, 201))
        return view(answer.json(), asked=answer.asked)

    def ask(
        self,
        method: str,
        path: str,
        deadline: Deadline,
        *,
        json: Any = None,
        params: Mapping[str, str | int] | None = None,
        absent_ok: bool = False,
        known: bool = True,
    ) -> Response | None:
        """A request that may arrive twice; None for "there is no such thing" where that is an answer, and, when the
        path is not `known` to every server, for "there is no such path"."""

        def once() -> Response:
            return self.api.call(
                method,
                path,
                deadline,
                json=json,
                params=params,
                retry="safe",
                expect=(200, 201, 202, 204, 404) if absent_ok else (200, 201, 202, 204),
            )

        answer = patiently(once, deadline)
        if answer.status != 404:
            return answer
        if known:
            self.check_absence(answer, deadline)
        return None

    def check_absence(self, answer: Response, deadline: Deadline) -> None:
        """Raises BackendError unless a 404 says that there is no such thing. One of a web server in its place, or for a
        path that it does not know, proves nothing; in other words than Daytona's it is believed where a listing from
        the same address is whole, and does not show it either."""
        said = said_absent(answer)
        if said == "yes" or (said == "perhaps" and not self._may_list(answer.asked.rpartition("/")[2], deadline)):
            return
        raise BackendError(
            f"{answer.asked} was answered with 404, but not as Daytona does",
            hint="check DAYTONA_API_URL: it ends in /api",
            details={"status": 404},
        )

    def _may_list(self, name: str, deadline: Deadline) -> bool:
        try:
            answer = self._page({"name": name, "limit": PAGE}, deadline)
            items, cursor = page(answer.json())
            return cursor is not None or any(name in (found.id, found.name) for found in _views(items, answer))
        except SandboxerError:
            return True

    def listed(self, labels: Mapping[str, str], deadline: Deadline) -> Iterator[DaytonaSandbox]:
        """Every sandbox with these labels. Raises BackendError unless the listing came to its end."""
        asked: dict[str, str | int] = {
            "labels": msgspec.json.encode(labels).decode(),
            "limit": PAGE,
            "includeErroredDeleted": "true",
        }
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            answer = self._page(asked, deadline)
            items, cursor = page(answer.json())
            yield from _views(items, answer)
            if cursor is None:
                return
            if cursor in seen:
                break
            seen.add(cursor)
            asked = {**asked, "cursor": cursor}
        raise BackendError("Daytona's list of sandboxes does not end", hint="try again; nothing is concluded from it")

    def _page(self, asked: Mapping[str, str | int], deadline: Deadline) -> Response:
        return patiently(lambda: self.api.call("GET", "/sandbox", deadline, params=asked, retry="safe"), deadline)

    def toolbox(self, sandbox_id: str, address: str | None, deadline: Deadline) -> Toolbox:
        """The toolbox of a sandbox by Daytona's id, at the address that the API told, or tells when it is asked. Raises
        Denied when the key must not go there, BackendError when no address is told."""
        told = self._chosen or address or self._address(sandbox_id, deadline)
        if not told:
            raise BackendError(
                f"Daytona does not say where the toolbox of {sandbox_id} is", hint="set DAYTONA_TOOLBOX_URL"
            )
        base = parse_base_url(told, what="the address of Daytona's toolbox")
        if self._chosen is None and not trusted(self.api.base, base):
            raise Denied(
                f"Daytona names a toolbox at {base.authority}, which does not belong to {self.api.base.host}:"
                " the key is not sent there",
                hint=f"if it is right, set DAYTONA_TOOLBOX_URL={base.url}",
            )
        return Toolbox(ApiClient(base.url, name="Daytona", headers=self._headers, refuse=api_error), sandbox_id)

    def _address(self, sandbox_id: str, deadline: Deadline) -> str | None:
        """Where the toolbox is, for a server that does not tell it with the sandbox."""
        path = f"/sandbox/{segment(sandbox_id)}/toolbox-proxy-url"
        answer = self.ask("GET", path, deadline, absent_ok=True, known=False)
        document = None if answer is None else answer.json()
        found = document.get("url") if isinstance(document, dict) else None
        return found if isinstance(found, str) else None


class Toolbox:
    """The toolbox inside one sandbox."""

    def __init__(self, api: ApiClient, sandbox_id: str) -> None:
        self.api = api
        self.prefix = f"/{segment(sandbox_id)}"

    def path(self, below: str) -> str:
        """A path of this sandbox's toolbox."""
        return self.prefix + below


def page(document: Any) -> tuple[list[Any], str | None]:
    """Parse a page of a listing: its items, and the cursor of the next; None after the last. Raises BackendError for
    what is not a whole page. Pure. (Servers before the cursor answered with a bare list of everything.)"""
    if isinstance(document, list):
        return document, None
    if isinstance(document, dict) and isinstance(document.get("items"), list) and "nextCursor" in document:
        cursor = document["nextCursor"]
        if cursor is None or isinstance(cursor, str):
            return document["items"], cursor or None
    raise BackendError(
        "Daytona's list of sandboxes is not one", hint="check DAYTONA_API_URL; nothing is concluded from it"
    )


def _views(items: list[Any], answer: Response) -> Iterator[DaytonaSandbox]:
    return (view(item, asked=answer.asked) for item in items)


def said_absent(answer: Response) -> Literal["yes", "no", "perhaps"]:
    """Tell whether a 404 is Daytona's own "there is no such thing"; "no" where it is about a path. Pure."""
    try:
        document = document_bounds.decode(answer.body)
    except msgspec.DecodeError:
        document = None
    said = document.get("message") if isinstance(document, dict) else None
    if not isinstance(said, str):
        return "perhaps"
    return "no" if said.startswith("Cannot ") else "yes"


def trusted(api: BaseURL, toolbox: BaseURL) -> bool:
    """Decide whether the key may go to a toolbox at this address: the API's own host, or one of the same domain, never
    less well protected than the API itself. Pure.

    The domain is what follows the first label of the API's host (`app.daytona.io`: `daytona.io`); a host without one,
    or a number, stands for itself alone."""
    if toolbox.scheme != "https" and api.scheme == "https":
        return False
    host, other = api.host.lower().rstrip("."), toolbox.host.lower().rstrip(".")
    if other == host or (api.loopback and toolbox.loopback):
        return True
    try:
        ip_address(host)
    except ValueError:
        domain = host.partition(".")[2]
        return domain.count(".") >= 1 and other.endswith("." + domain)
    return False


def patiently(once: Callable[[], T], deadline: Deadline) -> T:
    """Call `once`, again a few times when Daytona names the time to wait by a header of its own and that
    fits in the deadline."""
    for _ in range(_TOLD_TIMES):
        try:
            return once()
        except Unavailable as error:
            told = wait.told_to_wait(error)
            if told is None or not wait.fits(told, deadline):
                raise
            sleep(told, deadline)
    return once()


def sleep(seconds: float, deadline: Deadline) -> None:
    """Wait; raises Timeout when the deadline passes meanwhile."""
    wait.pause(seconds, deadline, "waiting for Daytona")


def pauses(first: float = 0.04, longest: float = 1.0) -> Iterator[float]:
    """Yield seconds between looks: most changes take less than a second."""
    return wait.pauses(first, longest=longest)
