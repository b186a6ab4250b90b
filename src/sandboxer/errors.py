"""The error tree: one class a code; each knows its exit code and its HTTP status (contract §3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from sandboxer.masking import masked, masked_values

Outcome = Literal["failed", "unknown"]
Fault = Literal["caller", "backend"]


class SandboxerError(Exception):
    """What went wrong, in words for the person or program that asked.

    `hint` says what to type or check next. `retryable` is None when nobody knows. `outcome` is "unknown" when the
    asked-for thing may exist although we could not see it happen; such a record stays until `reconcile` settles it;
    `outcome_stated` whether whoever raised it said so, rather than leaving it at "failed".
    `made_nothing` is set by an extension whose create certainly made nothing although it saved a handle before it
    asked: where the backend cannot be looked at either, there is nothing to wait for.
    `fault` tells whose it is: what the caller asked for fails the same way on every backend, so a route does not try
    the next one. Its texts are made without the values of secrets (`masking`), whoever wrote them.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    default_retryable: ClassVar[bool | None] = False
    default_fault: ClassVar[Fault] = "caller"
    default_hint: ClassVar[str] = "this is a bug: run it again with SANDBOXER_DEBUG=1 and report it"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        retryable: bool | None = None,
        outcome: Outcome | None = None,
        fault: Fault | None = None,
        sandbox_id: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        message = masked(message)
        super().__init__(message)
        self.message = message
        self.hint = masked(hint) or self.default_hint
        self.retryable = self.default_retryable if retryable is None else retryable
        self.outcome: Outcome = outcome or "failed"
        self.outcome_stated = outcome is not None
        self.made_nothing = False
        self.fault: Fault = fault or self.default_fault
        self.sandbox_id = sandbox_id
        self.details = masked_values(dict(details)) if details else None

    def document(self) -> dict[str, Any]:
        """The fields of the error document, without the enclosing "error" key."""
        doc: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "outcome": self.outcome,
        }
        if self.sandbox_id is not None:
            doc["sandbox_id"] = self.sandbox_id
        if self.details is not None:
            doc["details"] = self.details
        return doc


class Internal(SandboxerError):
    """A bug of ours."""

    default_retryable = None


class StoreCorrupt(SandboxerError):
    """A store that cannot be read, is newer, or is not ours. Its bytes are kept as they are."""

    default_hint = "run `sandboxer doctor`"
    code = "store_corrupt"
    exit_code = 13


class Invalid(SandboxerError):
    """The request, a profile or a manifest is wrong."""

    default_hint = "see `sandboxer --help` and docs/meta-framework.md"
    code = "invalid"
    exit_code = 2
    http_status = 422


class NotFound(SandboxerError):
    """No such sandbox, snapshot, profile or extension."""

    default_hint = "run `sandboxer list --all`"
    code = "not_found"
    exit_code = 3
    http_status = 404


class Conflict(SandboxerError):
    """Not allowed in the present state, a name that is taken, or something locked by another."""

    default_hint = "run `sandboxer get ID` to see its state"
    code = "conflict"
    exit_code = 4
    http_status = 409


class Unsupported(SandboxerError):
    """The extension lacks the capability."""

    default_hint = "run `sandboxer extensions list` to see what each can do"
    code = "unsupported"
    exit_code = 5
    http_status = 501


class NotConfigured(SandboxerError):
    """A credential, a program or a host is missing; the hint says which."""

    default_hint = "run `sandboxer doctor`"
    code = "not_configured"
    default_fault = "backend"
    exit_code = 6
    http_status = 424


class BackendError(SandboxerError):
    """The backend answered, and said no."""

    default_hint = "run `sandboxer doctor`"
    code = "backend_error"
    default_fault = "backend"
    exit_code = 7
    http_status = 502
    default_retryable = None


class Unavailable(SandboxerError):
    """The backend did not answer."""

    default_hint = "run `sandboxer doctor`, then try again"
    code = "unavailable"
    default_fault = "backend"
    exit_code = 8
    http_status = 503
    default_retryable = True


class OverQuota(Unavailable):
    """A consumer has as much as its quota allows. `retry_after`: when to try again, in seconds."""

    default_hint = "try again later, or end what is not needed"
    http_status = 429

    def __init__(self, message: str, *, retry_after: float, hint: str = "") -> None:
        super().__init__(message, hint=hint, fault="caller")
        self.retry_after = max(1, round(retry_after))


class InsufficientCredits(SandboxerError):
    """The estimate exceeds what is left."""

    default_hint = "see `sandboxer credits show`; then `sandboxer credits add AMOUNT`"
    code = "insufficient_credits"
    exit_code = 9
    http_status = 402


class Partial(SandboxerError):
    """A sweep did some of its work, or a copy left something out; the document lists what remains."""

    default_hint = "run it again; the document lists what remains"
    code = "partial"
    exit_code = 10
    http_status = 207
    default_retryable = True


class Denied(SandboxerError):
    """Credentials refused, a host key that does not match, or a policy. `http_status` is 401 only without a token."""

    default_hint = "run `sandboxer doctor`"
    code = "denied"
    default_fault = "backend"
    exit_code = 11
    http_status = 403


class Timeout(SandboxerError):
    """A deadline passed."""

    default_hint = "give it longer with --timeout"
    code = "timeout"
    default_fault = "backend"
    exit_code = 124
    http_status = 504
    default_retryable = True

    def reworded(self, message: str, *, hint: str = "") -> Timeout:
        """The same in other words, with the same outcome; the hint stays unless another is given."""
        return Timeout(message, hint=hint or self.hint, outcome=self.outcome if self.outcome_stated else None)


class Interruption(BaseException):
    """An interrupt of the main thread: not an Exception, so that nothing that handles errors mistakes it for one.

    `sandbox_id` is the sandbox whose create it ended, and `left` what there still is of that one; None where no create
    was recorded yet. The last three are of a `run` whose sandbox was ready."""

    sandbox_id: str | None = None
    left: Literal["nothing", "kept", "unknown", "destroyed", "stays", "going"] | None = None


class Interrupted(SandboxerError):
    """Ctrl-C (130), SIGTERM (143), SIGHUP (129) or Ctrl-\\ (131). The exit code is 128 + the signal's number."""

    default_hint = "run `sandboxer list` to see what is there"
    code = "interrupted"
    exit_code = 130
    http_status = 503
    default_retryable = True

    def __init__(self, message: str, *, signal_number: int = 2, hint: str = "", sandbox_id: str | None = None) -> None:
        super().__init__(message, hint=hint, sandbox_id=sandbox_id)
        self.signal_number = signal_number


def exit_code_of(error: SandboxerError) -> int:
    """The exit status a shell reports for an error."""
    if isinstance(error, Interrupted):
        return 128 + error.signal_number
    return error.exit_code


TREE: tuple[type[SandboxerError], ...] = (
    Internal, StoreCorrupt, Invalid, NotFound, Conflict, Unsupported, NotConfigured, BackendError, Unavailable,
    InsufficientCredits, Partial, Denied, Timeout, Interrupted,
)  # fmt: skip
BY_CODE: dict[str, type[SandboxerError]] = {cls.code: cls for cls in TREE}


def from_document(doc: Mapping[str, Any]) -> SandboxerError:
    """Rebuild an error that was stored or sent; an unknown code becomes `Internal`."""
    cls = BY_CODE.get(str(doc.get("code")), Internal)
    message, hint = str(doc.get("message", "")), str(doc.get("hint", ""))
    if cls is Interrupted:
        return Interrupted(message, hint=hint, sandbox_id=doc.get("sandbox_id"))
    return cls(
        message,
        hint=hint,
        retryable=doc.get("retryable"),
        outcome=doc.get("outcome", "failed"),
        sandbox_id=doc.get("sandbox_id"),
        details=doc.get("details"),
    )
