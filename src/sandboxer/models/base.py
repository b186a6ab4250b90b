"""The two kinds of records, and the words that several of them use."""

from __future__ import annotations

from typing import Literal

import msgspec


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A record of ours, read from our own documents."""


class Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document that a person wrote: unknown keys are errors."""


ActorType = Literal["adm", "agt", "atm"]
IsolationClass = Literal["none", "process", "namespace", "container", "vm", "microvm", "remote"]
SyscallFilter = Literal["filtered", "unfiltered", "unknown"]
PricingModel = Literal["free", "metered"]
DurationText = str | int
