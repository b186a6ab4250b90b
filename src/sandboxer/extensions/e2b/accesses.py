"""What a process remembers of the sandboxes that it reached, so that each command does not have to ask again."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Final

import msgspec

from sandboxer.errors import SandboxerError
from sandboxer.extensions.base import Context
from sandboxer.extensions.e2b.client import E2BClient, E2BSandbox, EnvdAccess
from sandboxer.extensions.e2b.connect import seconds_until
from sandboxer.extensions.e2b.handle import E2BHandleData, is_gone, other_key_error
from sandboxer.extensions.provider.errors import ended, stopped

_KEPT: Final = 512


def running(control: E2BClient, place: E2BHandleData, ctx: Context) -> tuple[E2BSandbox, EnvdAccess]:
    """A look at a sandbox that is to be used. Raises Conflict, saying why, when it does not run."""
    looked = control.look(place.id)
    if looked is None:
        raise (
            ended(place.id, provider="E2B", sandbox_id=place.sandbox_id)
            if is_gone(place, ctx)
            else other_key_error(place)
        )
    if looked[0].state != "running":
        raise stopped(place.id, looked[0].state, provider="E2B", sandbox_id=place.sandbox_id)
    return looked


class AccessCache:
    """Tokens of sandboxes, in memory only: a handle holds none. Each is bound to the key that it was given to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str, str], EnvdAccess] = OrderedDict()

    def keep(self, control: E2BClient, sandbox: str, access: EnvdAccess) -> None:
        """Remember."""
        with self._lock:
            self._known[control.base, control.key, sandbox] = access
            self._known.move_to_end((control.base, control.key, sandbox))
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)

    def forget(self, control: E2BClient, sandbox: str) -> None:
        """It has gone, or its token is not valid any more."""
        with self._lock:
            self._known.pop((control.base, control.key, sandbox), None)

    def known(self, control: E2BClient, place: E2BHandleData) -> EnvdAccess | None:
        """How a sandbox is reached, if this process knows."""
        with self._lock:
            return self._known.get((control.base, control.key, place.id))

    def of(self, control: E2BClient, place: E2BHandleData, ctx: Context) -> EnvdAccess:
        """How a sandbox is reached, asked for if it is not known. Raises Conflict when it does not run."""
        known = self.known(control, place)
        if known is not None:
            return known
        shown, access = running(control, place, ctx)
        return self.learn(control, place, shown, access)

    def learn(self, control: E2BClient, place: E2BHandleData, shown: E2BSandbox, access: EnvdAccess) -> EnvdAccess:
        """How a running sandbox is reached, from a look at it. A look need not tell the token: the answer to the create
        did, and the one to `connect` does. That is told the end which the sandbox has anyway."""
        known = self.known(control, place)
        if access.token is None and known is not None and known.token is not None:
            access = msgspec.structs.replace(known, domain=access.domain or known.domain)
        elif access.token is None:
            with suppress(SandboxerError):  # then envd says whether it wants one
                ends = shown.end_at or place.ends or 0.0
                access = control.connect(place.id, seconds_until(ends, time.time())) or access
        self.keep(control, place.id, access)
        return access
