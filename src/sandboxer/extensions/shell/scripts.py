"""How a path inside is packed: shell text that adapters put between entering the parent and running tar."""

from __future__ import annotations

from typing import Final

ABSENT: Final = 44
"""What the scripts exit with when there is no such path."""
REFUSED: Final = 45


def follow(*, failed: int = ABSENT) -> str:
    """POSIX sh that expects to be in the parent of the entry `$2`, and sets `$name` and the flags `$follow` for
    `tar -c $follow -- "$name"`; it may go to another directory, and exits with `failed` when it cannot.

    A link is followed when it is what was asked for, as `cp` does; those below are not: one to / leads round and
    round. Holes are sent as such where tar can: GNU's has to be told, bsdtar does it by itself, busybox's cannot."""
    return (
        'name=$2 follow=; if [ -L "$2" ] && [ -d "$2" ]; then '
        f'cd -P -- "$2" && name=${{PWD##*/}} && cd .. || exit {failed}; '
        f'[ -n "$name" ] || {{ echo "it leads to /, which cannot be copied as a whole" >&2; exit {REFUSED}; }}; '
        'elif [ -L "$2" ]; then follow=-h; fi; '
        'case $(tar --version 2>/dev/null) in *"GNU tar"*) follow="$follow -S" ;; esac; '
    )
