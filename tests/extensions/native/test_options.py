"""What a profile may say, and what it is told when it says something else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sandboxer.extensions.native import NativeExtension
from sandboxer.extensions.native.options import NativeOptions, size
from sandboxer.models import Resources


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"unknown": 1}, "unknown"),
        ({"network": "bridge"}, "network"),
        ({"services": {"a": {"command": []}}}, "needs a program"),
        ({"services": {"a": {"command": [""]}}}, "needs a program"),
        ({"services": {"a": {"command": ["-x"]}}}, "starts with -"),
        ({"services": {"a": {"command": "run me"}}}, "array"),
        ({"services": {"a b": {"command": ["x"]}}}, "not the name of a service"),
        ({"services": {"../a": {"command": ["x"]}}}, "not the name of a service"),
        ({"services": {"a": {"command": ["x\0"]}}}, "NUL"),
        ({"services": {"a": {"command": ["x"], "env": {"A B": "1"}}}}, "environment variable"),
        ({"services": {"a": {"command": ["x"], "cwd": "rel"}}}, "absolute"),
        ({"services": {"a": {"command": ["x"], "restart": "maybe"}}}, "restart"),
        ({"settle": -1}, "settle"),
        ({"limits": {"memory": "lots"}}, "size"),
        ({"limits": {"memory": 0}}, "more than 0"),
        ({"limits": {"processes": -5}}, "more than 0"),
        ({"limits": {"cpu": 0.0}}, "more than 0"),
        ({"ro_binds": {"/workspace/x": "/x"}}, "of its own"),
        ({"ro_binds": {"/proc": "/x"}}, "of its own"),
        ({"ro_binds": {"/etc/passwd": "/x"}}, "of its own"),
        ({"ro_binds": {"/": "/x"}}, "plain absolute path"),
        ({"ro_binds": {"/opt/../etc": "/x"}}, "plain absolute path"),
        ({"ro_binds": {"/opt/x": "relative"}}, "plain absolute path"),
    ],
)
def test_a_wrong_option_is_refused_and_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert(options, NativeOptions)


def test_the_default_is_a_plain_sandbox_without_a_network() -> None:
    options = NativeOptions()
    assert (options.network, options.services, options.ro_binds, options.python) == ("none", {}, {}, False)


@pytest.mark.parametrize(
    ("text", "expected"), [("512m", 512 << 20), ("2G", 2 << 30), ("1GiB", 1 << 30), ("64kb", 65536), ("7", 7), (9, 9)]
)
def test_sizes(text: str | int, expected: int) -> None:
    assert size(text) == expected


def test_what_is_metered_is_the_share_that_the_limits_give() -> None:
    found = NativeExtension().estimate_cost({"limits": {"cpu": 1.5, "memory": "512m"}})
    assert (found.vcpu, found.memory_gib, found.gpus) == (1.5, 0.5, 0)
    assert NativeExtension().estimate_cost(NativeOptions()) == Resources()
