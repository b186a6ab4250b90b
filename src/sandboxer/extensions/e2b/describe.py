"""Describe a sandbox at E2B to the core: how it is reached and isolated, what it has, whether it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from sandboxer.errors import BackendError, Timeout, Unavailable
from sandboxer.extensions.base import Context, Status
from sandboxer.extensions.e2b.envd import Envd, domain_of
from sandboxer.extensions.e2b.handle import E2BHandleData
from sandboxer.extensions.e2b.sandbox import E2BSandbox, EnvdAccess
from sandboxer.extensions.provider.wait import pause
from sandboxer.models import Isolation, Reachability, Ready, Resources, Service
from sandboxer.timing import Deadline

_TICK: Final = 0.5
_LAST_WORD: Final = 0.5
"""Seconds after the deadline, which is the call's own too, in which it may still say why it has not ended."""
_UNREACHED: Final = "check E2B_SANDBOX_URL and the network; sandboxes are reached at another address than the API"
_OWN: Final = ("e2b.app", "e2b.dev", "e2b.pro")


def ready(data: E2BHandleData, shown: E2BSandbox, access: EnvdAccess, *, domain: str | None) -> Ready:
    """Describe how a ready sandbox is reached and isolated; `domain` is the one that was chosen. Pure."""
    domain = domain_of(data.api, access, domain)
    return Ready(
        reachability=Reachability(
            kind="api",
            provider_id=data.id,
            command=f"sandboxer exec {data.sandbox_id} -- sh",
            services=[] if domain is None else [_service(data, port, domain) for port in data.ports],
        ),
        isolation=isolation(data, shown),
        resources=shown.resources,
        ends_at=shown.end_at,
    )


def status(shown: E2BSandbox) -> Status:
    """Describe the state of a sandbox. A paused one costs nothing and has no end. Pure."""
    if shown.state == "running":
        return Status("running", ends_at=shown.end_at)
    return Status("stopped", f"{shown.state} at E2B", billed=Resources())


def _service(data: E2BHandleData, port: int, domain: str) -> Service:
    host = f"{port}-{data.id}.{domain}"
    return Service(name=str(port), container_port=port, host=host, port=443, url=f"https://{host}")


def isolation(data: E2BHandleData, shown: E2BSandbox) -> Isolation:
    """Describe the isolation: E2B's own sandboxes are Firecracker virtual machines; of another server that speaks its
    API, nothing is known from here. Pure."""
    domain = domain_of(data.api, None, None) or ""
    own = any(domain == known or domain.endswith(f".{known}") for known in _OWN)
    notes = ["whatever listens on a port inside can be reached from the internet by who knows the sandbox's id"]
    if not own:
        notes.insert(0, f"what isolates the sandboxes of {data.api} is not known from here")
    return Isolation(
        class_="microvm" if own else "remote", network="none" if shown.internet is False else "internet", notes=notes
    )


def check_declared(data: E2BHandleData, has: Resources) -> None:
    """Raise BackendError when a template has less than the profile says of it."""
    for name, unit in (("vcpu", "vCPU"), ("memory_gib", "GiB of memory"), ("disk_gib", "GiB of disk")):
        declared, there = data.declared.get(name), getattr(has, name)
        if declared is not None and there < declared:
            raise BackendError(
                f"the sandbox has {there:g} {unit}, and the profile declares {declared:g}",
                hint=f"correct `options.{name}`, or build the template with as much",
                retryable=False,
            )


def reach(envd: Envd, ctx: Context) -> None:
    """Wait until a sandbox's envd answers. Raises Timeout, with the last reason, and what it says for good."""
    wait, reason = 0.1, ""
    try:
        while True:
            try:
                return envd.healthy(ctx.deadline)
            except Unavailable as error:
                reason = error.message
                ctx.progress("wait", reason)
                pause(wait, ctx.deadline, "waiting for E2B")
            wait = min(2.0, wait * 2)
    except Timeout:
        if not reason:
            raise
        raise Timeout(f"its envd did not answer in time: {reason}", hint=_UNREACHED) from None


class BackgroundCall:
    """A call that goes on in a thread beside another wait, which saves a round trip. It is left behind when nobody
    waits for it: it has an end of its own."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sandboxer-meanwhile", daemon=True)
        self._thread.start()

    def wait(self, deadline: Deadline) -> None:
        """Wait for its end; raises what it raised, or Timeout."""
        while self._thread.is_alive() and not deadline.passed:
            self._thread.join(deadline.seconds(_TICK))
        self._thread.join(_LAST_WORD)
        if self._thread.is_alive():
            deadline.check("waiting for the sandbox to answer")
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            self._error = error
