"""What a profile may ask for, what it comes to, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandboxer.errors import Unsupported
from sandboxer.extensions.base import capabilities
from sandboxer.extensions.modal import ModalExtension
from sandboxer.extensions.modal.options import GPUS, ModalOptions, fit, parse_gpu, resources
from sandboxer.models import Manifest, Requirements, Resources
from sandboxer.payments.prices import hourly, usd_text
from tests.installations import installed


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The built-in manifest, as the registry reads it."""
    return installed(tmp_path_factory.mktemp("here")).manager.services.extensions.manifest("ext.modal")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"cpu": 0}, "cpu"), ({"cpu": 65}, "cpu"), ({"memory_gib": 0.1}, "memory_gib"), ({"gpu": "T4:9"}, "gpu"),
        ({"gpu": "two words"}, "gpu"), ({"image": "-x"}, "image"), ({"image": "a\nRUN b"}, "image"),
        ({"ports": [0]}, "ports"),
        ({"ports": [80, 80]}, "ports"), ({"ports": [80], "block_network": True}, "block_network"),
        ({"env": {"A B": "x"}}, "env"), ({"env": {"A": "\0"}}, "NUL"), ({"command": [""]}, "command"),
        ({"workdir": "relative"}, "workdir"), ({"max_life": "25h"}, "max_life"),
        ({"idle_timeout": "soon"}, "idle_timeout"),
        ({"region": "US EAST"}, "region"), ({"cloud": "--"}, "cloud"), ({"unknown": 1}, "unknown"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], word: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=word):
        msgspec.convert(options, ModalOptions)


@pytest.mark.parametrize(
    ("text", "model", "count"),
    [("t4", "T4", 1), ("H100:2", "H100", 2), ("A10G", "A10", 1), ("a100", "A100-40GB", 1), ("H100!", "H100!", 1)],
)
def test_gpus_are_named_as_modal_names_them(text: str, model: str, count: int) -> None:
    assert parse_gpu(text) == (model, count)


def test_two_virtual_processors_are_one_core() -> None:
    assert resources(ModalOptions(cpu=1.5, memory_gib=3, gpu="A100:2")) == Resources(
        vcpu=3, memory_gib=3, gpu="A100-40GB", gpus=2
    )


def test_requirements_raise_what_is_asked_for_and_never_lower_it() -> None:
    small, large = ModalOptions(), ModalOptions(cpu=8, memory_gib=32)
    require = Requirements(vcpu=6, memory_gib=10, gpu="h100:2", network="none")
    assert fit(small, require) == ModalOptions(cpu=3, memory_gib=10, gpu="H100:2", block_network=True)
    assert fit(large, require) == ModalOptions(cpu=8, memory_gib=32, gpu="H100:2", block_network=True)


@pytest.mark.parametrize(
    ("options", "require"),
    [
        (ModalOptions(gpu="T4"), Requirements(gpu="H100")),
        (ModalOptions(ports=[80]), Requirements(network="none")),
        (ModalOptions(block_network=True), Requirements(network="internet")),
        (ModalOptions(), Requirements(vcpu=200)),
        (ModalOptions(), Requirements(memory_gib=1000)),
        (ModalOptions(), Requirements(disk_gib=0.5)),
        (ModalOptions(), Requirements(gpu="VOODOO2")),
    ],
)
def test_what_cannot_be_met_is_refused_with_a_way_out(options: ModalOptions, require: Requirements) -> None:
    with pytest.raises(Unsupported) as caught:
        fit(options, require)
    assert caught.value.hint


def test_every_gpu_that_may_be_required_has_a_price(manifest: Manifest) -> None:
    assert manifest.prices is not None
    assert set(manifest.prices.gpu_hour) == set(GPUS)


@pytest.mark.parametrize(
    ("options", "usd"),
    [
        (ModalOptions(cpu=1, memory_gib=1), "0.1661"),
        (ModalOptions(cpu=0.125, memory_gib=1), "0.0419375"),
        (ModalOptions(cpu=2, memory_gib=8, gpu="T4"), "1.0678"),
        (ModalOptions(cpu=1, memory_gib=1, gpu="H100:2"), "8.0645"),
    ],
)
def test_an_hour_costs_what_the_table_says(manifest: Manifest, options: ModalOptions, usd: str) -> None:
    assert usd_text(hourly(manifest.prices, ModalExtension().estimate_cost(options))) == usd


def test_the_manifest_and_the_profile_are_what_the_class_can_do(manifest: Manifest, tmp_path: Path) -> None:
    assert set(capabilities(ModalExtension)) >= {"exec", "copy", "logs", "renew", "meter", "snapshot"}
    assert "stop" not in capabilities(ModalExtension)
    assert (manifest.self_hosted, manifest.max_ttl, manifest.pricing_model) == (False, "24h", "metered")
    profile = installed(tmp_path).manager.services.profiles.get("profile.modal-gpu")
    chosen = msgspec.convert(profile.options, ModalOptions)
    assert parse_gpu(chosen.gpu or "")[0] in GPUS
    assert chosen.max_life == profile.ttl.max
