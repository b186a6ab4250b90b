"""Judge a `--mount` of RUN: what a build would share with others, read or hold while one instruction runs.

Builders had holes here: a link in an image or in the context, a name with `..` of a cache and options that were passed
on led to the host's files. So each option has a form in which all builders read it alike, and nothing else passes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

CACHE_GRANT: Final = "build:cache"
_PLACE: Final = re.compile(r"(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9_./@+~-]+")
_WHOLE: Final = re.compile(r"/(?!.*(?:^|/)\.\.(?:/|$))[A-Za-z0-9_./@+~-]*")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NUMBER: Final = re.compile(r"\d{1,10}")
_SIZE: Final = re.compile(r"\d{1,10}[bkmg]?", re.IGNORECASE)
_YES: Final = re.compile("|true|1")
_TARGETS: Final = ("target", "dst", "destination")
_READ_ONLY: Final[Mapping[str, re.Pattern[str]]] = {"ro": _YES, "readonly": _YES}
_OPTIONS: Final[Mapping[str, Mapping[str, re.Pattern[str]]]] = {
    "bind": {"source": _PLACE, "src": _PLACE, **dict.fromkeys(_TARGETS, _PLACE), **_READ_ONLY},
    "cache": {
        "id": _NAME,
        "sharing": re.compile("shared|private|locked"),
        "mode": _NUMBER,
        "uid": _NUMBER,
        "gid": _NUMBER,
        # without an id the target is the cache's name, which old builders took for a path
        **dict.fromkeys(_TARGETS, _WHOLE),
        **_READ_ONLY,
    },
    "tmpfs": {"size": _SIZE, **dict.fromkeys(_TARGETS, _PLACE)},
}
"""The options of each kind that passes, with the values that they may have."""
_NEVER: Final = {
    "secret": "a secret of whoever builds: the build reads it where no rule is checked",
    "ssh": "the SSH agent of whoever builds, which signs for whoever asks",
}


class RunMount(msgspec.Struct, frozen=True):
    """What one mount asks for, and the grant for it; `source`: the path in the context that it shows."""

    gives_away: str | None = None
    grant: str | None = None
    source: str | None = None


def judge_mount(value: str) -> RunMount:
    """Judge the options of a mount."""
    pairs = [part.partition("=")[::2] for part in value.split(",")]
    options = {name.lower(): text for name, text in pairs}
    kind = options.pop("type", "bind").lower()
    if kind in _NEVER:
        return RunMount(_NEVER[kind])
    known = _OPTIONS.get(kind)
    if known is None:
        return RunMount(f"whatever a builder mounts as {kind[:40]!r}: nobody has looked at it yet")
    if len({name.lower() for name, _ in pairs}) != len(pairs):
        return RunMount("a mount that builders read in different ways: an option is given twice")
    if "from" in options:
        return RunMount(
            "files of the host: older builders follow a link of the image out of it; take them with COPY --from"
        )
    for name, text in options.items():
        if name not in known:
            return RunMount(
                f"whatever a builder takes {name[:40]!r} of a mount for: it would not be read-only and plain"
            )
        if not known[name].fullmatch(text):
            return RunMount(f"what {name}={text[:80]} leads to: write it out, plainly and without `..`")
    if not any(name in options for name in _TARGETS):
        return RunMount("a mount that builders read in different ways: it has no target")
    if kind == "cache":
        return RunMount("caches that all builds of the engine share: what one leaves there, another runs", CACHE_GRANT)
    if kind == "bind":
        return RunMount(source=options.get("source") or options.get("src") or ".")
    return RunMount()
