"""Finding a Python on the host that a sandbox can use."""

from __future__ import annotations

import sys

from sandboxer.errors import NotConfigured
from sandboxer.extensions.base import Context
from sandboxer.extensions.native.host_facts import HostFacts
from sandboxer.extensions.native.options import NativeOptions

_ASK = "import sys; print(sys.base_prefix if sys.version_info >= (3, 11) else '')"


def python_home(options: NativeOptions, facts: HostFacts, ctx: Context) -> str | None:
    """The tree of a Python 3.11 or newer to show at /opt/python; None when none is asked for or /usr has one.

    Raises NotConfigured when there is none."""
    if not options.python or facts.pythons:
        return None
    if ctx.host.address().kind == "local":
        return sys.base_prefix
    done = ctx.host.run(["python3", "-c", _ASK], ctx.deadline)
    if done.code == 0 and done.text.startswith("/"):
        return done.text
    raise NotConfigured(
        f"the host {ctx.host.name} has no Python 3.11 or newer, which the profile asks for",
        hint="install python3 there, or set `options.python: false` in the profile",
    )
