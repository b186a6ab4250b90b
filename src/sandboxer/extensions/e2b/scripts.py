"""Hold the shell scripts that run inside sandboxes: POSIX sh, with programs that every Debian has. Values are
arguments."""

from __future__ import annotations

from typing import Final

from sandboxer.extensions.shell.processes import ENTER

_SESSION: Final = (
    # a session of its own, so that all of it can be found later; not where the process leads a group already, because
    # setsid would then leave us without waiting
    'IFS= read -r s <"/proc/$$/stat"; s=${s##*) }; s=${s#* }; s=${s#* }; '
    'if [ "${s%% *}" != "$$" ] && command -v setsid >/dev/null 2>&1; then exec setsid "$@"; fi; '
)
RUN: Final = ENTER + _SESSION + 'exec "$@"'
"""WORKDIR WORD...: become the command, in a session of its own. 126: the directory cannot be entered."""
RUN_CLOSED: Final = "exec </dev/null; " + RUN
"""The same without an input."""
RUN_FROM: Final = 'f=$1; shift; exec <"$f" || exit 125; rm -f "$f"; ' + RUN
"""FILE WORKDIR WORD...: the same with a file as the input."""
RUN_TERMINAL: Final = ENTER + 'exec "$@"'
"""The same on a terminal, whose process leads its session already."""
