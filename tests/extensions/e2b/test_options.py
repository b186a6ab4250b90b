"""What a profile may ask for, and which requirements that meets."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sandboxer.errors import Unsupported
from sandboxer.extensions.e2b import E2BExtension
from sandboxer.extensions.e2b.options import E2BOptions
from sandboxer.models import Requirements, Resources


def options(**more: Any) -> E2BOptions:
    return msgspec.convert(more, E2BOptions)


@pytest.mark.parametrize(
    "wrong",
    [
        {"template": "../other"},
        {"template": ""},
        {"vcpu": 0},
        {"memory_gib": -1},
        {"env": {"A=B": "x"}},
        {"env": {"A": "\0"}},
        {"ports": [0]},
        {"ports": [65536]},
        {"user": "root; id"},
        {"unknown": 1},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        options(**wrong)


def test_no_network_is_met_by_closing_it() -> None:
    assert not E2BExtension().fit(options(), Requirements(network="none")).allow_internet_access


def test_internet_is_not_met_by_options_that_close_it() -> None:
    with pytest.raises(Unsupported, match="internet is required"):
        E2BExtension().fit(options(allow_internet_access=False), Requirements(network="internet"))


def test_resources_are_met_only_by_what_the_template_was_built_with() -> None:
    fit = E2BExtension().fit
    assert fit(options(vcpu=8, memory_gib=4), Requirements(vcpu=4, memory_gib=4)).vcpu == 8
    with pytest.raises(Unsupported) as caught:
        fit(options(vcpu=2), Requirements(vcpu=4))
    assert "options.vcpu" in caught.value.hint


def test_a_requirement_that_a_default_meets_is_checked_when_the_sandbox_is_up() -> None:
    fitted = E2BExtension().fit(options(), Requirements(memory_gib=0.5))
    assert fitted.memory_gib == 0.5, "it is declared now, and wait_ready compares"


def test_an_undeclared_template_is_estimated_as_e2bs_default() -> None:
    assert E2BExtension().estimate_cost(options()) == Resources(vcpu=2, memory_gib=0.5)
    assert E2BExtension().estimate_cost(options(vcpu=8, memory_gib=4)) == Resources(vcpu=8, memory_gib=4)
