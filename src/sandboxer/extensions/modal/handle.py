"""Keep what is needed of a sandbox in its handle and its tags, and tell what "not found" proves."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from sandboxer import document_bounds
from sandboxer.errors import NotConfigured
from sandboxer.extensions.base import Spec, from_handle
from sandboxer.extensions.modal.client import ModalScope
from sandboxer.extensions.modal.options import LONGEST, ModalOptions, seconds
from sandboxer.extensions.provider import account
from sandboxer.models import Handle, Value
from sandboxer.names import LABEL_ID, LABEL_INSTALL

VERSION: Final = 1
CREATED: Final = "sandboxer.created"
ENDS: Final = "sandboxer.ends"
NETWORK: Final = "sandboxer.network"
GPU: Final = "sandboxer.gpu"
"""Tags of our own, for what the public API does not show of a sandbox that is found again: when it was created, when
Modal ends it (unix seconds), `none` or `internet`, and the model of its GPU."""
OWN: Final = (CREATED, ENDS, NETWORK, GPU)
LATE: Final = 120.0
"""How long after its end by Modal's own clock a sandbox may still be seen, in seconds."""


class ModalHandleData(Value, frozen=True, kw_only=True):
    """The data of a sandbox's handle. `provider_id` is None while the create has not been answered; `ends` is when
    Modal ends it by itself (unix seconds, at the latest); `account` tells whose credentials it was made with; `ports`
    is None where they have to be asked for."""

    name: str
    server: str
    environment: str | None
    app: str
    account: str
    ends: float
    ports: list[int] | None = None
    blocked: bool = False
    gpu: str | None = None
    provider_id: str | None = None

    def handle(self) -> Handle:
        """As the core stores it."""
        return Handle(version=VERSION, data=msgspec.to_builtins(self))

    @property
    def scope(self) -> ModalScope:
        """Where it is."""
        return ModalScope(server=self.server, environment=self.environment, app=self.app, account=self.account)


class ModalSnapshotData(Value, frozen=True, kw_only=True):
    """The data of a snapshot's handle: an image of Modal's, and the options that a sandbox made of it does not bring
    along."""

    image: str
    server: str
    account: str

    def handle(self) -> Handle:
        """As the core stores it."""
        return Handle(version=VERSION, data=msgspec.to_builtins(self))


def sandbox(handle: Handle) -> ModalHandleData:
    """Read the data of a sandbox's handle. Raises Conflict for a handle of another version."""
    return from_handle(handle, ModalHandleData, version=VERSION)


def snapshot(handle: Handle) -> ModalSnapshotData:
    """Read the data of a snapshot's handle. Raises Conflict for a handle of another version."""
    return from_handle(handle, ModalSnapshotData, version=VERSION)


def check_server(made_at: str, now_at: str) -> None:
    """Raise NotConfigured when the context means another server than the one that has the sandbox."""
    account.check_address("it", made_at, now_at, variable="MODAL_SERVER_URL")


def check_environment(made_in: str | None, now_in: str | None) -> None:
    """Raise NotConfigured when the context means another of Modal's environments."""
    if made_in != now_in:
        raise NotConfigured(
            f"it was asked for in Modal's environment {made_in or '(default)'}, and MODAL_ENVIRONMENT means"
            f" {now_in or '(default)'}",
            hint=f"set MODAL_ENVIRONMENT={made_in} for this command" if made_in else "unset MODAL_ENVIRONMENT",
        )


def lives(spec: Spec, options: ModalOptions) -> tuple[int, int]:
    """Compute the seconds from now: how long the sandbox shall live, and how long Modal lets it live at most. Rounded
    up."""
    left = LONGEST if spec.expires_at is None else max(1, math.ceil(spec.expires_at - time.time()))
    life = min(left, LONGEST)
    return life, max(life, seconds(options.max_life) or 0)


def tags(carried: Mapping[str, str], known: ModalHandleData) -> dict[str, str]:
    """Write labels and what else has to be found again as Modal's tags: with dashes instead of dots in their names."""
    more = {
        CREATED: str(int(time.time())),
        ENDS: str(int(known.ends)),
        NETWORK: "none" if known.blocked else "internet",
        **({} if known.gpu is None else {GPU: known.gpu.replace(":", ".")}),
    }
    return {name.replace(".", "-"): value for name, value in {**carried, **more}.items()}


def labels(found: Mapping[str, str]) -> dict[str, str]:
    """Read tags as our labels."""
    return {name.replace("-", ".", 1): value for name, value in found.items() if name.startswith("sandboxer-")}


def bare(name: str, scope: ModalScope) -> ModalHandleData:
    """Make the data of a sandbox of which no more is known than its name: its end may be as late as Modal grants to one
    made now."""
    return ModalHandleData(
        name=name,
        server=scope.server,
        environment=scope.environment,
        app=scope.app,
        account=scope.account,
        ends=time.time() + LONGEST,
    )


def again(name: str, scope: ModalScope, found: Mapping[str, str], *, provider_id: str) -> ModalHandleData:
    """Make the data of a sandbox that was found by its tags."""
    told = labels(found)
    known = bare(name, scope)
    ends = document_bounds.number(told.get(ENDS, ""))
    return msgspec.structs.replace(
        known,
        provider_id=provider_id,
        ends=known.ends if ends is None else float(ends),
        blocked=told.get(NETWORK) == "none",
        gpu=told.get(GPU),
    )


def is_ours(found: Mapping[str, str], *, install: str, sandbox_id: str) -> bool:
    """Tell whether tags are those of one sandbox of one installation."""
    known = labels(found)
    return known.get(LABEL_INSTALL) == install and known.get(LABEL_ID) == sandbox_id


def proves_absence(known: ModalHandleData, scope: ModalScope) -> bool:
    """Tell whether "not found" proves the absence: it was made with these credentials, or its end is over anyway."""
    return account.proves_absence(known.account, scope.account, over_at=known.ends + LATE, now=time.time())


def listing_filter(install: str) -> dict[str, str]:
    """Make the tags that everything of an installation carries."""
    return {LABEL_INSTALL.replace(".", "-"): install}
