"""Declared ports become free loopback ports of the same container ports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.document import Plain
from sandboxer.extensions.compose_ssh.transform import remap


@pytest.mark.parametrize(
    ("declared", "remapped"),
    [
        (["80"], ["127.0.0.1::80"]),
        ([Plain("80")], ["127.0.0.1::80"]),
        (["8080:80"], ["127.0.0.1::80"]),
        (["0.0.0.0:8080:80"], ["127.0.0.1::80"]),
        (["[::1]:8080:80"], ["127.0.0.1::80"]),
        (["53:53/udp"], ["127.0.0.1::53/udp"]),
        (["53:53/tcp"], ["127.0.0.1::53"]),
        (["8000-8002:80-82"], ["127.0.0.1::80", "127.0.0.1::81", "127.0.0.1::82"]),
        (["3000-3001/udp"], ["127.0.0.1::3000/udp", "127.0.0.1::3001/udp"]),
        (["${WEB_PORT:-18080}:80"], ["127.0.0.1::80"]),
        (["${IP:-127.0.0.1}:${WEB_PORT:-18080}:${INNER:-80}"], ["127.0.0.1::${INNER:-80}"]),
        (["${PORT}"], ["127.0.0.1::${PORT}"]),
        (["8080:80", "9090:80"], ["127.0.0.1::80"]),
        ([{"target": Plain("80"), "published": "8080", "mode": "host"}], ["127.0.0.1::80"]),
        ([{"target": Plain("53"), "protocol": "udp"}], ["127.0.0.1::53/udp"]),
        ([], []),
        (Plain(""), []),
    ],
)
def test_a_port_in_each_notation(declared: object, remapped: list[str]) -> None:
    assert remap(declared, service="web") == remapped


@pytest.mark.parametrize(
    "declared",
    [
        "80", {"a": "b"}, ["http"], ["8080:http"], ["80/icmp"], ["0"], ["70000"], ["90-80"], ["1-65535"], [""],
        ["8080:"],
        ["80/tcp/udp"], [["80"]], [{}], [{"target": Plain("")}], [{"target": "x"}], [{"published": "80"}], ["--help"],
    ],
)  # fmt: skip
def test_what_is_no_port_is_invalid(declared: object) -> None:
    with pytest.raises(Invalid, match="service 'web'"):
        remap(declared, service="web")


@given(st.lists(st.text(alphabet="0123456789:-/.[]${}tcpud ", max_size=20), max_size=5))
def test_whatever_is_remapped_is_on_a_free_loopback_port(declared: list[str]) -> None:
    try:
        remapped = remap(declared, service="web")
    except Invalid:
        return
    assert all(port.startswith("127.0.0.1::") for port in remapped)
