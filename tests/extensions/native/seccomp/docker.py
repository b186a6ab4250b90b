"""Docker's default profile as it stands in its own file, for a container without capabilities on a kernel of today."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from tests.testbed.components import DOCKER_PROFILE

_ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}


@cache
def _rules() -> list[dict[str, Any]]:
    profile = json.loads(DOCKER_PROFILE.read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert profile["defaultErrnoRet"] == 1
    rules: list[dict[str, Any]] = profile["syscalls"]
    return rules


def allows(machine: str, name: str, arguments: Sequence[int]) -> bool:
    """Whether a container could make this call."""
    return any(
        rule["action"] == "SCMP_ACT_ALLOW"
        and name in rule["names"]
        and _in_force(rule, _ARCHES[machine])
        and all(_fits(part, arguments) for part in rule.get("args") or [])
        for rule in _rules()
    )


def names() -> set[str]:
    """All that it names."""
    return {name for rule in _rules() for name in rule["names"]}


def _in_force(rule: dict[str, Any], arch: str) -> bool:
    wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
    assert set(wanted) <= {"caps", "arches", "minKernel"}, wanted
    assert wanted.get("minKernel", "4.8") == "4.8"
    if wanted.get("caps") or arch not in wanted.get("arches", [arch]):
        return False
    return arch not in unwanted.get("arches", [])


def _fits(part: dict[str, Any], arguments: Sequence[int]) -> bool:
    value, against = arguments[part["index"]] & (2**64 - 1), part["value"]
    match part["op"]:
        case "SCMP_CMP_LT":
            return bool(value < against)
        case "SCMP_CMP_EQ":
            return bool(value == against)
        case "SCMP_CMP_GT":
            return bool(value > against)
        case "SCMP_CMP_MASKED_EQ":
            return bool(value & against == part.get("valueTwo", 0))
    raise AssertionError(part["op"])
