"""The words of `grants` in a profile."""

from __future__ import annotations

import pytest

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.policy import Grants
from sandboxer.extensions.compose_ssh.policy.grants import FORMS

WORDS = [
    "bind:/srv/data", "bind:/srv/data:ro", "bind:/", "volume:db", "network:front", "network:host", "pid:host",
    "ipc:host", "privileged", "cap:NET_ADMIN", "device:/dev/kvm", "sysctl:net.core.somaxconn", "port:public", "env:CI",
    "runtime:runsc", "logging:syslog", "build:network", "build:cache", "frontend:docker/dockerfile:1",
]  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_a_grant_is_read_and_told(word: str) -> None:
    grants = Grants.parse([word])
    assert grants.has(word)
    assert len(grants.notes()) == 1
    assert word in grants.notes()[0]


def test_every_form_of_the_contract_has_a_word_here() -> None:
    assert {form.split(":")[0] for form in FORMS} == {word.split(":")[0] for word in WORDS}


def test_a_capability_is_the_same_in_every_spelling() -> None:
    assert Grants.parse(["cap:cap_net_admin"]).has("cap:NET_ADMIN")


@pytest.mark.parametrize(
    "word",
    ["", "bind", "bind:", "bind:data", "bind:/a/../b", "bind://a", "bind:/a:rw", "bind:/a:/b", "privileged:yes",
     "pid:x", "volume:", "volume:a b", "cap:", "device:kvm", "device:/dev/../etc", "port:80", "build:secrets", "root",
     "bind:/a\n"],
)  # fmt: skip
def test_a_word_that_is_no_grant_is_named_with_the_known_ones(word: str) -> None:
    with pytest.raises(Invalid) as raised:
        Grants.parse(["privileged", word])
    assert repr(word) in raised.value.message
    assert "bind:PATH" in raised.value.hint
