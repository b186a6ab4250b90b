"""What `doctor` says of keys and of OpenBao: what is there and what to type, never a value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Command
from tests.testbed.openbao import OpenBao

MANIFEST = """\
id: ext.mine
version: 1.0.0
class: sandboxer.testing.fake:FakeExtension
isolation: {class: remote}
self_hosted: false
endpoints: {api: {variable: MINE_URL, default: "https://api.example.org"}}
secrets:
  MINE_KEY: {ref: "env:MINE_KEY"}
  MINE_ID: {ref: "env:MINE_ID"}
"""
VALUE = "canary-77aa31c05e"


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with OpenBao(tmp_path_factory.mktemp("openbao")) as server:
        server.policy("ci")
        yield server


class Doctor:
    """`sandboxer doctor --json` in an installation with one provider's manifest."""

    def __init__(self, root: Path, *, config: str = "") -> None:
        self.root = root
        self.command = Command(root)
        (root / "config" / "extensions" / "ext.mine.yaml").write_text(MANIFEST)
        self.config = root / "config" / "config.yaml"
        if config:
            self.config.write_text(config)
        self.config.chmod(0o600)

    def __call__(self, subject: str, **environment: str) -> list[tuple[str, str, str]]:
        """Level, text and hint of each finding about a subject."""
        answer = self.command("doctor", "--json", stdin=b"", seconds=60, **environment)
        assert VALUE not in answer.stdout + answer.stderr
        found = [entry for entry in answer.document["findings"] if entry["subject"] == subject]
        return [(entry["level"], entry["text"], entry.get("hint", "")) for entry in found]


def test_keys_are_there_or_missing_by_name(tmp_path: Path) -> None:
    """Promise 28."""
    doctor = Doctor(tmp_path)
    ((level, text, hint),) = doctor("ext.mine credentials")
    assert (level, "MINE_KEY" in text, "MINE_KEY" in hint) == ("ok", True, True)
    ((level, text, _),) = doctor("ext.mine credentials", MINE_KEY=VALUE, MINE_ID=VALUE)
    assert (level, text) == ("ok", "there: MINE_KEY (env), MINE_ID (env)")
    ((level, text, hint),) = doctor("ext.mine credentials", MINE_KEY=VALUE)
    assert (level, "MINE_ID" in text, "MINE_ID" in hint) == ("warning", True, True)


def test_a_reference_that_was_configured_and_leads_nowhere_is_a_warning(tmp_path: Path) -> None:
    refs = f"MINE_KEY: {{ref: 'cmd:no-such-program x'}}, MINE_ID: {{ref: 'file:{tmp_path}/nothing'}}"
    doctor = Doctor(tmp_path, config=f"extensions: {{ext.mine: {{secrets: {{{refs}}}}}}}\n")
    found = doctor("ext.mine credentials")
    assert [level for level, _, _ in found] == ["warning", "warning"]
    assert "no-such-program" in found[0][1]
    assert str(tmp_path / "nothing") in found[1][1]


def test_files_with_values_that_others_may_read_are_told(tmp_path: Path) -> None:
    """Promise 28."""
    key = tmp_path / "key"
    key.write_text(VALUE)
    key.chmod(0o644)
    refs = f"MINE_KEY: {{ref: 'file:{key}'}}, MINE_ID: {{ref: 'env:MINE_ID'}}"
    config = f"api: {{token: {VALUE}}}\nextensions: {{ext.mine: {{secrets: {{{refs}}}}}}}\n"
    doctor = Doctor(tmp_path, config=config)
    ((level, text, hint),) = doctor("secrets")
    assert (level, str(key) in text, "chmod 600" in hint) == ("warning", True, True)
    doctor.config.chmod(0o644)
    assert len(doctor("secrets")) == 2
    key.chmod(0o600)
    doctor.config.chmod(0o600)
    assert doctor("secrets") == []


def test_a_key_that_would_travel_in_the_clear_is_told(tmp_path: Path) -> None:
    doctor = Doctor(tmp_path)
    found = doctor("ext.mine credentials", MINE_URL="http://api.example.org")
    assert ("warning", True) in [(level, "plain http" in text) for level, text, _ in found]
    found = doctor("ext.mine credentials", MINE_URL="http://127.0.0.1:1")
    assert "warning" not in [level for level, _, _ in found]


def test_openbao_is_looked_at_with_our_login(tmp_path: Path, bao: OpenBao) -> None:
    doctor = Doctor(tmp_path)
    ((level, text, _),) = doctor("openbao")
    assert (level, text) == ("ok", "off (no address is set)")
    ((level, text, _),) = doctor("openbao", BAO_ADDR=bao.address, BAO_TOKEN=bao.token("ci", ttl="1h"))
    assert level == "ok"
    assert "2.7.2" in text
    assert "the token is good for" in text
    ((level, text, hint),) = doctor("openbao", BAO_ADDR=bao.address, BAO_TOKEN=VALUE)
    assert (level, "refuses our token" in text, "bao" in hint) == ("error", True, True)
    ((level, text, hint),) = doctor("openbao", BAO_ADDR=bao.address)
    assert (level, "no login" in text, "BAO_TOKEN" in hint) == ("error", True, True)
    ((level, text, _),) = doctor("openbao", BAO_ADDR="http://127.0.0.1:9", BAO_TOKEN=VALUE)
    assert (level, "cannot be reached" in text) == ("error", True)


def test_an_app_role_is_tried(tmp_path: Path, bao: OpenBao) -> None:
    role, secret_id = bao.app_role("ci")
    config = f"openbao: {{address: {bao.address}, app_role: {{role_id: {role}, secret_id: 'env:SECRET_ID'}}}}\n"
    doctor = Doctor(tmp_path, config=config)
    ((level, text, _),) = doctor("openbao", SECRET_ID=secret_id)
    assert (level, "AppRole login works" in text) == ("ok", True)
    ((level, text, _),) = doctor("openbao", SECRET_ID=VALUE)
    assert (level, "refuses" in text) == ("error", True)


def test_a_sealed_openbao_is_told(tmp_path: Path) -> None:
    with OpenBao(tmp_path / "bao") as server:
        server.admin.sys.seal()
        ((level, text, hint),) = Doctor(tmp_path / "here")("openbao", BAO_ADDR=server.address, BAO_TOKEN=server.root)
    assert (level, "sealed" in text, "unseal" in hint) == ("error", True, True)
