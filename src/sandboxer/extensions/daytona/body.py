"""What Daytona is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sandboxer.extensions.daytona.options import DaytonaOptions, gpu


def minutes(expires_at: float | None, now: float) -> int:
    """The TTL in Daytona's unit, rounded up so that it never ends early; 0 is none. Both in unix seconds."""
    return 0 if expires_at is None else max(1, math.ceil((expires_at - now) / 60))


def create_body(
    options: DaytonaOptions, *, name: str, labels: Mapping[str, str], expires_at: float | None, now: float
) -> dict[str, Any]:
    """The body of `POST /sandbox`. Pure. Nothing is sent that was not asked for, so that an older server, which would
    refuse a key that it does not know, is asked for no more than it has to understand."""
    body: dict[str, Any] = {
        "name": name,
        "labels": dict(labels),
        "autoStopInterval": options.auto_stop_minutes,
        "autoDeleteInterval": options.auto_delete_minutes,
    }
    if expires_at is not None:
        body["ttlMinutes"] = minutes(expires_at, now)
    if options.env:
        body["env"] = options.env
    if options.public:
        body["public"] = True
    if options.network == "none":
        body["networkBlockAll"] = True
    if options.network_allow_list:
        body["networkAllowList"] = ",".join(options.network_allow_list)
    for key, value in (
        ("target", options.target),
        ("user", options.user),
        ("autoArchiveInterval", options.auto_archive_minutes),
        ("queueTimeout", options.queue_minutes),
    ):
        if value is not None:
            body[key] = value
    return body | (_from_image(options) if options.image is not None else _from_snapshot(options))


def _from_snapshot(options: DaytonaOptions) -> dict[str, Any]:
    """Resources are refused beside a snapshot: it brings its own."""
    return {} if options.snapshot is None else {"snapshot": options.snapshot}


def _from_image(options: DaytonaOptions) -> dict[str, Any]:
    body: dict[str, Any] = {"buildInfo": {"dockerfileContent": f"FROM {options.image}\n"}}
    for key, value in (("cpu", options.cpu), ("memory", options.memory_gib), ("disk", options.disk_gib)):
        if value is not None:
            body[key] = value
    if options.gpu is not None:
        model, count = gpu(options.gpu)
        body |= {"gpu": count, "gpuType": [model]}
    return body
