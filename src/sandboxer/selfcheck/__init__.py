"""The canary's self-check: what a sandbox's isolation really lets through, measured from inside, next to the claim.

`run` is the core's call. `probe` and `escapes` go inside the sandbox together with the rest of the package and need
nothing but Python 3.11; so this file, which they import on their way, imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` costs the probe 4 ms
if TYPE_CHECKING:
    from typing import Any

    from sandboxer.extensions.base import Context, SandboxExtension
    from sandboxer.models import Handle, Ready


def run(extension: SandboxExtension, handle: Handle, ready: Ready, ctx: Context, *, version: str) -> dict[str, Any]:
    """The report of a sandbox that is up: version, host telemetry, isolation as claimed and as measured.

    Puts this package at `/workspace/.sandboxer/sandboxer.pyz` and leaves it there; everything else
    it makes is removed again, also when it fails. Takes four round trips to the host.

    Raises BackendError when the measurement contradicts a claim (`details["contradictions"]` says which, and
    `details["report"]` is the whole report) or the probe did not answer; NotConfigured when there is no Python 3.11
    inside; Unsupported when the extension cannot both copy and execute; and what the host and the extension raise.
    """
    from sandboxer.selfcheck.check import self_check

    return self_check(extension, handle, ready, ctx, version=version)
