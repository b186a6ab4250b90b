"""Map the SDK's exceptions to SandboxerError. What is not listed here escapes as the bug it is."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from sandboxer.errors import (
    BackendError,
    Conflict,
    Denied,
    NotConfigured,
    NotFound,
    Outcome,
    SandboxerError,
    Timeout,
    Unavailable,
)
from sandboxer.extensions.provider.errors import Reason, over_quota, reason, unpaid
from sandboxer.http import without_html

_KEYS: Final = "MODAL_TOKEN_ID and MODAL_TOKEN_SECRET"
_MOST: Final = 300


def translated(error: BaseException, doing: str) -> SandboxerError | None:
    """Map what the SDK raised while `doing`; None for what is no failure of Modal's.

    `outcome` is "unknown" where the request may have reached the server and its answer was lost."""
    if isinstance(error, SandboxerError):
        return error
    for names, make in _TABLE:
        if _is(error, names):
            return make(error, doing)
    if isinstance(error, ImportError):
        return NotConfigured(
            f"the Modal SDK lacks a package that it needs while {doing} (a proxy is configured, perhaps)",
            hint="pip install 'modal[api-proxy-support]', or set MODAL_DISABLE_API_PROXY=1 to go without the proxy",
        )
    if isinstance(error, OSError) or type(error).__module__.startswith(("grpclib.", "h2.")):
        return _lost(error, doing)
    return None


def text_of(error: BaseException) -> str:
    """Shorten the provider's own words for a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return without_html(" ".join(lines))[:_MOST] or type(error).__name__


def _is(error: BaseException, names: tuple[str, ...]) -> bool:
    """By name, so that a table can be read without the SDK; subclasses count."""
    return any(cls.__module__ == "modal.exception" and cls.__name__ in names for cls in type(error).__mro__)


def _denied(error: BaseException, doing: str) -> SandboxerError:
    return Denied(f"Modal refused the credentials while {doing}: {text_of(error)}", hint=f"check {_KEYS}")


def _forbidden(error: BaseException, doing: str) -> SandboxerError:
    if (why := reason(403, str(error))) in ("billing", "quota"):
        return _account(error, why)
    return Denied(
        f"Modal does not allow {doing}: {text_of(error)}",
        hint=f"the token's role is too small, or the workspace is suspended: check {_KEYS}",
    )


def _exhausted(error: BaseException, doing: str) -> SandboxerError:
    after = _retry_after(error)
    if after is not None:
        return Unavailable(
            f"Modal asks to slow down while {doing}: {text_of(error)}",
            hint=f"try again in {after:g}s",
            details={"retry_after": after},
        )
    why = reason(429, str(error))
    if why == "capacity":
        return Unavailable(
            f"Modal has no free machine: {text_of(error)}", hint="try again later, or another gpu or region"
        )
    return _account(error, why)


def _account(error: BaseException, why: Reason | None) -> SandboxerError:
    """What an account is refused for: it has to pay first, or it has as much as it may have."""
    if why == "billing":
        return unpaid(f"Modal refuses the workspace: {text_of(error)}", where="modal.com/settings", details={})
    return over_quota(
        f"Modal's limit for this workspace is reached: {text_of(error)}", where="modal.com/settings", details={}
    )


def _retry_after(error: BaseException) -> float | None:
    """Seconds to wait that the server attached to a refusal (`RPCRetryPolicy`)."""
    details: Any = getattr(error, "_grpc_details", None)
    for entry in details or ():
        seconds = getattr(entry, "retry_after_secs", None)
        if seconds is not None:
            return float(seconds)
    return None


def _missing(error: BaseException, doing: str) -> SandboxerError:
    return NotFound(
        f"Modal does not know it while {doing}: {text_of(error)}", hint="it may have ended: run `sandboxer get ID`"
    )


def _ended(error: BaseException, doing: str) -> SandboxerError:
    return Conflict(
        f"the sandbox ended while {doing}: {text_of(error)}",
        hint="run `sandboxer reconcile`; its life is over, or somebody ended it at Modal",
        fault="backend",
        details={"presence": "absent"},
    )


def _name_taken(error: BaseException, doing: str) -> SandboxerError:
    return Conflict(f"the name is taken at Modal while {doing}: {text_of(error)}", hint="run `sandboxer reconcile`")


def _refused(error: BaseException, doing: str) -> SandboxerError:
    return BackendError(f"Modal refused {doing}: {text_of(error)}", hint="check the profile's options", retryable=False)


def _over(error: BaseException, doing: str) -> SandboxerError:
    return BackendError(
        f"Modal says that it is not possible now, {doing}: {text_of(error)}",
        hint="run `sandboxer get ID` to see whether the sandbox still runs",
        retryable=False,
    )


def _wrong_version(error: BaseException, doing: str) -> SandboxerError:
    return NotConfigured(
        f"Modal no longer accepts this SDK ({doing}): {text_of(error)}",
        hint="pip install --upgrade 'sand-boxer[modal]'",
    )


def _late(error: BaseException, doing: str) -> SandboxerError:
    return Timeout(f"Modal took too long while {doing}: {text_of(error)}", outcome="unknown")


def _lost(error: BaseException, doing: str) -> SandboxerError:
    outcome: Outcome = "failed" if _never_sent(error) else "unknown"
    return Unavailable(
        f"Modal cannot be reached while {doing}: {text_of(error)}",
        hint="check the network and MODAL_SERVER_URL, then try again",
        outcome=outcome,
    )


def _never_sent(error: BaseException) -> bool:
    """Whether not even a connection came about."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionRefusedError | socket.gaierror):
            return True
        seen = seen.__cause__
    return False


def _internal(error: BaseException, doing: str) -> SandboxerError:
    return BackendError(
        f"Modal failed while {doing}: {text_of(error)}", hint="try again", retryable=True, outcome="unknown"
    )


def _failed(error: BaseException, doing: str) -> SandboxerError:
    return BackendError(f"Modal failed while {doing}: {text_of(error)}", hint="see its message")


def _image(error: BaseException, doing: str) -> SandboxerError:
    return BackendError(
        f"Modal could not build the image ({doing}): {text_of(error)}",
        hint="check the option `image`: a full name with a tag, and public",
        retryable=False,
    )


_TABLE: Final[tuple[tuple[tuple[str, ...], Callable[[BaseException, str], SandboxerError]], ...]] = (
    (("AuthError",), _denied),
    (("PermissionDeniedError",), _forbidden),
    (("ResourceExhaustedError",), _exhausted),
    (("NotFoundError",), _missing),
    (("AlreadyExistsError",), _name_taken),
    (("ConflictError",), _over),  # before InvalidError, which it is too
    (("InvalidError", "UnimplementedError", "RequestSizeError"), _refused),
    (("VersionError",), _wrong_version),
    (("ImageBuildError",), _image),
    (("SandboxTimeoutError", "SandboxTerminatedError"), _ended),  # before TimeoutError, which the first is too
    (("TimeoutError",), _late),
    (("ConnectionError", "ServiceError", "ClientClosed"), _lost),
    (("InternalError", "InternalFailure", "DataLossError"), _internal),
    (("Error",), _failed),
)
