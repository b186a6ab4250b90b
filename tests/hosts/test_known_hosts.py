"""Reading known_hosts, compared with what ssh-keygen writes and finds."""

import base64
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.hosts.ssh import known_hosts
from sandboxer.hosts.ssh.known_hosts import KnownKeys, host_matches, lookup, parse_line


def public_key(kind: str, seed: bytes = b"k") -> tuple[bytes, str]:
    """Bytes that look like a key, and the words of a line for them."""
    blob = len(kind).to_bytes(4, "big") + kind.encode() + len(seed).to_bytes(4, "big") + seed
    return blob, f"{kind} {base64.b64encode(blob).decode()}"


ED, ED_WORDS = public_key("ssh-ed25519")
ED2, ED2_WORDS = public_key("ssh-ed25519", b"other")
RSA, RSA_WORDS = public_key("ssh-rsa")


@pytest.mark.parametrize(
    ("hosts", "name", "matches"),
    [
        ("example.org", "example.org", True),
        ("Example.ORG", "example.org", True),
        ("example.org", "example.org.evil", False),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("host?", "host1", True),
        ("host?", "host12", False),
        ("a,b,c", "b", True),
        ("*,!bad", "bad", False),
        ("!bad,*", "bad", False),
        ("!bad", "good", False),
        ("[host]:2222", "[host]:2222", True),
        ("[host]:2222", "host", False),
        ("[ab]", "a", False),
        ("|1|AAAA|AAAA", "host", False),
        ("|2|AAAA|AAAA", "host", False),
        ("|1|!!|??", "host", False),
    ],
)
def test_the_first_field_of_a_line(hosts: str, name: str, matches: bool) -> None:
    assert host_matches(hosts, name) is matches


def test_hashed_names_match_as_ssh_keygen_hashes_them(tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    words = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    file = tmp_path / "known_hosts"
    file.write_text(f"[127.0.0.1]:2222 {words}\nexample.org {words}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    text = file.read_text()
    assert "example" not in text
    assert lookup([text], host="127.0.0.1", port=2222).trusted
    assert lookup([text], host="example.org", port=22).trusted
    assert not lookup([text], host="127.0.0.1", port=22).trusted
    blob = base64.b64decode(words.split()[1])
    shown = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True).stdout
    assert known_hosts.fingerprint(blob) in shown.split()


def test_only_the_algorithms_of_known_keys_are_offered() -> None:
    known = lookup([f"h {RSA_WORDS}\n"], host="h", port=22)
    assert known.algorithms == ("rsa-sha2-512", "rsa-sha2-256")
    assert lookup([f"h {ED_WORDS}\nh {RSA_WORDS}"], host="h", port=22).algorithms[0] == "ssh-ed25519"
    assert KnownKeys().algorithms == ()


def test_an_authority_lets_certificates_be_offered() -> None:
    known = lookup([f"@cert-authority h {ED_WORDS}\n"], host="h", port=22)
    assert known.authorities == {ED}
    assert known.trusted == ()
    assert all(algorithm.endswith("-cert-v01@openssh.com") for algorithm in known.algorithms)


def test_a_revoked_key_is_trusted_nowhere() -> None:
    text = f"h {ED_WORDS}\n@revoked * {ED_WORDS}\n@cert-authority h {ED2_WORDS}\n@revoked h {ED2_WORDS}\n"
    known = lookup([text], host="h", port=22)
    assert not known.trusted
    assert not known.authorities
    assert known.revoked == {ED, ED2}


def test_a_line_with_the_port_comes_before_one_without() -> None:
    text = f"h {RSA_WORDS}\n[h]:2222 {ED_WORDS}\n"
    assert lookup([text], host="h", port=2222).trusted == (("ssh-ed25519", ED),)
    assert lookup([text], host="h", port=22).trusted == (("ssh-rsa", RSA),)
    assert lookup([text], host="h", port=2223).trusted == (("ssh-rsa", RSA),)


def test_an_alias_is_looked_up_alone() -> None:
    text = f"h {RSA_WORDS}\nother {ED_WORDS}\n"
    assert lookup([text], host="h", port=2222, alias="Other").trusted == (("ssh-ed25519", ED),)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# h ssh-rsa AAAA",
        "h",
        "h ssh-rsa",
        "h ssh-rsa !!!!",
        f"h ssh-rsa {ED_WORDS.split()[1]}",
        f"@x h {ED_WORDS}",
    ],
)
def test_a_line_that_cannot_be_read_vouches_for_nobody(line: str) -> None:
    assert parse_line(line) is None


@given(st.text(max_size=200))
def test_no_line_breaks_the_reader(line: str) -> None:
    """Promise 30: bad input never breaks a parser."""
    assert not lookup([line], host="h", port=22).trusted
