"""Import Modal's SDK, here alone, and keep what this process needs of it: connections, by account.

What is kept saves calls and holds no state of a sandbox: everything is found again by a process that has nothing."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import logging
import os
import threading
import urllib.request
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

import msgspec

from sandboxer.errors import NotConfigured, Unavailable
from sandboxer.extensions.base import Context
from sandboxer.extensions.modal.options import ModalOptions
from sandboxer.extensions.provider.account import check_sendable, usable_address

DEFAULT_SERVER: Final = "https://api.modal.com"
FALLBACK_SERVER: Final = "https://api.modal2.com"
"""Where the SDK itself turns when the first does not answer (modal 1.6.4, `modal.config`)."""
THROTTLE_SECONDS: Final = "20"
"""How long the SDK waits by itself when the server asks it to slow down; without this, for ever."""
PYTHON: Final = "3.12"
"""The Python of the default image: otherwise it would be that of whoever creates the sandbox."""
KNOCK_SECONDS: Final = 10.0
KEPT_SANDBOXES: Final = 256
KEPT_IMAGES: Final = 64
KEPT_APPS: Final = 64
KEPT_ACCOUNTS: Final = 16

T = TypeVar("T")

_lock = threading.Lock()
_modal: Any = None


class ModalScope(msgspec.Struct, frozen=True, kw_only=True):
    """Where sandboxes of one installation are: the server, Modal's environment (None: the account's default), and the
    App, which is ours alone; `account` tells credentials apart without giving them away."""

    server: str
    environment: str | None
    app: str
    account: str


def scope_of(ctx: Context) -> ModalScope:
    """Read the scope that a context means. Raises NotConfigured without credentials, Invalid without an address."""
    token_id, token_secret = _credentials(ctx)
    server = ctx.endpoints.get("server") or DEFAULT_SERVER
    server = usable_address(server, variable="MODAL_SERVER_URL").url  # it is kept in handles: no credentials in it
    environment = ctx.endpoints.get("environment")
    if environment is not None and not (environment.isascii() and environment.isprintable()):
        raise NotConfigured(
            "MODAL_ENVIRONMENT is not the name of an environment", hint="unset it, or write it like main"
        )
    digest = hashlib.sha256(f"{token_id}:{token_secret}".encode()).hexdigest()
    return ModalScope(
        server=server.rstrip("/"),
        environment=environment,
        app=f"sandboxer-{ctx.install}",
        account=digest[:8],
    )


def _credentials(ctx: Context) -> tuple[str, str]:
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        if name not in ctx.secrets:
            raise NotConfigured(f"{name} is not there", hint=f"set the environment variable {name}")
        check_sendable(ctx.secrets[name], variable=name)
    return ctx.secrets["MODAL_TOKEN_ID"].reveal(), ctx.secrets["MODAL_TOKEN_SECRET"].reveal()


def load() -> Any:
    """Import the package `modal`; raises NotConfigured when it is not installed.

    At import it would read `~/.modal.toml`, whose settings and credentials are somebody else's: it is pointed at
    nothing for that moment. A program that has imported modal before us keeps what it has."""
    global _modal
    with _lock:
        if _modal is not None:
            return _modal
        try:
            if importlib.util.find_spec("modal") is None:
                raise ModuleNotFoundError("modal")
            with _without_user_config():
                import modal
                import modal.exception
                import modal.experimental
        except ImportError as error:
            raise NotConfigured(
                f"the Modal SDK is not installed ({error})", hint="pip install 'sand-boxer[modal]'"
            ) from None
        # Below the SDK, it logs every header with its value, the credentials among them, where somebody turned the
        # logs of all libraries on.
        logging.getLogger("hpack").setLevel(logging.INFO)
        # Read by the SDK at every call.
        os.environ.setdefault("MODAL_MAX_THROTTLE_WAIT", THROTTLE_SECONDS)
        _modal = modal
        return _modal


@contextmanager
def _without_user_config() -> Iterator[None]:
    name = "MODAL_CONFIG_PATH"
    before = os.environ.get(name)
    os.environ[name] = f"{os.devnull}/none"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class SharedLookups(Generic[T]):
    """What was looked up, by key; the `most` used last are kept. Failures are not. Only used on one event loop.

    A look-up goes on when one of those who wait for it gives up, and is cancelled when the last one does."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._running: dict[Hashable, asyncio.Task[T]] = {}
        self._waiting: dict[Hashable, int] = {}

    async def get(self, key: Hashable, look: Callable[[], Awaitable[T]]) -> T:
        """What is kept for a key, else what `look` finds."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.ensure_future(_awaited(look))
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            found = await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._waiting[key] == 1 and not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
            raise
        finally:
            self._waiting[key] -= 1
            if task.done() or not self._waiting[key]:
                self._running.pop(key, None)
            if not self._waiting[key]:
                del self._waiting[key]
        self.keep(key, found)
        return found

    def keep(self, key: Hashable, value: T) -> None:
        """Keep what is known already."""
        self._kept[key] = value
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        """Look it up again next time."""
        self._kept.pop(key, None)


async def _awaited(look: Callable[[], Awaitable[Any]]) -> Any:
    return await look()


class ModalClient:
    """One account at one server: a connection, and what was looked up over it. Only used on the bridge's loop."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._apps: SharedLookups[Any] = SharedLookups(KEPT_APPS)
        self._images: SharedLookups[Any] = SharedLookups(KEPT_IMAGES)
        self._sandboxes: SharedLookups[Any] = SharedLookups(KEPT_SANDBOXES)

    async def app(self, scope: ModalScope, *, make: bool = True) -> Any:
        """The installation's App; unless `make`, raises the SDK's NotFoundError when there is none yet."""

        async def look() -> Any:
            return await load().App.lookup.aio(
                scope.app, client=self.client, environment_name=scope.environment, create_if_missing=make
            )

        return await self._apps.get(scope if make else (scope, "there"), look)

    async def image(self, options: ModalOptions, app: Any) -> Any:
        """The image of a sandbox, built when Modal has not built it yet."""

        async def build() -> Any:
            images = load().Image
            base = images.from_registry(options.image) if options.image else images.debian_slim(python_version=PYTHON)
            return await base.build.aio(app)

        return await self._images.get(options.image, build)

    def forget_base(self, scope: ModalScope, options: ModalOptions) -> None:
        """Look the App and the image up again next time: somebody may have removed them at Modal."""
        self._apps.forget(scope)
        self._images.forget(options.image)

    async def sandbox(self, provider_id: str) -> Any:
        """A sandbox by Modal's id; one that this process has used before keeps its connection."""
        return await self._sandboxes.get(
            provider_id, lambda: load().Sandbox.from_id.aio(provider_id, client=self.client)
        )

    def keep(self, sandbox: Any) -> Any:
        """Remember the connection of a sandbox."""
        self._sandboxes.keep(sandbox.object_id, sandbox)
        return sandbox

    def forget(self, provider_id: str) -> None:
        """It is gone, or has to be looked at afresh."""
        self._sandboxes.forget(provider_id)


_accounts: Final[SharedLookups[ModalClient]] = SharedLookups(KEPT_ACCOUNTS)


async def account(ctx: Context) -> ModalClient:
    """Get the account of a context; one for each server and credentials. Runs on the bridge's loop."""
    token_id, token_secret = _credentials(ctx)
    server = scope_of(ctx).server
    whole = hashlib.sha256(f"{token_id}:{token_secret}".encode()).hexdigest()
    return await _accounts.get((server, whole), lambda: _connect(server, token_id, token_secret))


async def _connect(server: str, token_id: str, token_secret: str) -> ModalClient:
    """`Client.from_credentials` takes the server from the process's environment; the constructor takes it as it is
    given, so that two servers can be used in one process."""
    modal = load()
    from modal_proto import api_pb2

    addresses = [DEFAULT_SERVER, FALLBACK_SERVER] if server == DEFAULT_SERVER else [server]
    await _knock(addresses)
    client = modal.Client(",".join(addresses), api_pb2.CLIENT_TYPE_CLIENT, (token_id, token_secret))
    opened: Callable[[], Awaitable[Any]] = client.__aenter__
    await opened()
    return ModalClient(client)


async def _knock(addresses: Sequence[str]) -> None:
    """Raise Unavailable when nobody listens at any of the addresses: the SDK's first call would go on trying for a
    minute. Behind a proxy nothing can be said."""
    if urllib.request.getproxies():
        return
    refusal: OSError | None = None
    for address in addresses:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(parts.hostname, port), KNOCK_SECONDS)
        except OSError as error:  # a time-out is one, too
            refusal = error
            continue
        writer.close()
        return
    raise Unavailable(
        f"nobody answers at {addresses[0]}: {refusal or 'no answer'}",
        hint="check the network and MODAL_SERVER_URL, then try again",
        outcome="failed",
    )
