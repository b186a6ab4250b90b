"""What a secret reference looks like, and that a value in its place is refused without being quoted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.config.catalog import shelves
from sandboxer.config.paths import Paths
from sandboxer.config.settings import load_settings
from sandboxer.errors import Invalid
from sandboxer.models.references import (
    CommandReference,
    EnvReference,
    FileReference,
    OpenBaoReference,
    parse_local_reference,
    parse_reference,
)

VALUE = "e2b_5d1f0c9b7e5d1f0c9b7e"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("env:E2B_API_KEY", EnvReference(variable="E2B_API_KEY")),
        ("file:/run/secrets/e2b", FileReference(path="/run/secrets/e2b")),
        ("file:~/.vault-token", FileReference(path="~/.vault-token")),
        ("openbao:secret/e2b#key", OpenBaoReference(mount="secret", path="e2b", key="key")),
        ("openbao:kv/ci/team a/é#api#key", OpenBaoReference(mount="kv", path="ci/team a/é", key="api#key")),
        ("openbao:team/kv//ci/e2b#key", OpenBaoReference(mount="team/kv", path="ci/e2b", key="key")),
        ("cmd:warden route find e2b", CommandReference(argv=("warden", "route", "find", "e2b"))),
        ("cmd:/opt/a\\ b 'c  d' \"$HOME\" *", CommandReference(argv=("/opt/a b", "c  d", "$HOME", "*"))),
    ],
)
def test_a_reference_is_understood(text: str, meant: object) -> None:
    assert parse_reference(text, what="x") == meant


@pytest.mark.parametrize(
    "text",
    [
        "", VALUE, f"key:{VALUE}", f"ENV:{VALUE}", "env:", "env:1X", "env:A=B", "file:", "file:relative/path",
        "file:~other/x", "openbao:", "openbao:secret#key", "openbao:secret/path", "openbao:secret/path#",
        "openbao:/path#key", "openbao:secret/../sys/seal#key", "openbao:secret/./x#key", "openbao:secret/a//b/#key",
        "openbao:secret/a/#key", "openbao:a?b/c#key", "cmd:", "cmd:  ", "cmd:''", "cmd:a 'b", "cmd:a\nb",
        "env:A\x00", "file:/" + "x" * 2000,
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused_and_not_quoted(text: str) -> None:
    """Promise 28: somebody may have put the value where its reference belongs."""
    with pytest.raises(Invalid) as caught:
        parse_reference(text, what="the key")
    said = caught.value.message + caught.value.hint
    assert "the key" in said
    assert VALUE not in said


@given(st.text(max_size=60) | st.text(max_size=60).map("openbao:".__add__) | st.text(max_size=60).map("cmd:".__add__))
def test_any_text_is_a_reference_or_invalid(text: str) -> None:
    """Promise 30; and what is shown of a reference never holds the words of a command."""
    try:
        found = parse_reference(text, what="x")
    except Invalid:
        return
    shown = str(found)
    if isinstance(found, CommandReference):
        assert shown in (f"cmd:{found.argv[0]}", f"cmd:{found.argv[0]} ...")
    else:
        assert parse_reference(shown, what="x") == found


def test_a_login_is_not_itself_read_from_openbao_or_a_command() -> None:
    for text in ("openbao:secret/token#x", "cmd:cat token"):
        with pytest.raises(Invalid):
            parse_local_reference(text, what="openbao.token")


PROFILE = "id: profile.mine\nversion: 1.0.0\nextension: ext.native\nsecrets: {%s}\n"
MANIFEST = "id: ext.mine\nversion: 1.0.0\nclass: a:B\nisolation: {class: remote}\nself_hosted: false\nsecrets: {%s}\n"


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        (f'KEY: {{ref: "{VALUE}"}}', "secrets.KEY.ref"),
        ('KEY: {ref: "openbao:x"}', "secrets.KEY.ref"),
        ('"my key": {ref: "env:A"}', "secrets"),
        (f"KEY: {{value: {VALUE}}}", "secrets"),
        (f'KEY: {{ref: "env:A", required: "{VALUE}"}}', "secrets.KEY.required"),
    ],
)
def test_a_wrong_reference_is_told_when_the_file_is_read(tmp_path: Path, wrong: str, key: str) -> None:
    """Promise 28: with the file and the key, and without what stands there."""
    profiles, manifests = shelves(Paths(data=tmp_path / "data", config=tmp_path))
    for kind, text in (("profiles/profile", PROFILE), ("extensions/ext", MANIFEST)):
        file = tmp_path / f"{kind}.mine.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text % wrong)
    for look in (lambda: profiles.get("profile.mine"), lambda: manifests.get("ext.mine")):
        with pytest.raises(Invalid) as caught:
            look()
        assert ".mine.yaml" in caught.value.message
        assert key in caught.value.message
        assert VALUE not in caught.value.message + caught.value.hint


def test_the_references_of_config_yaml_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f'extensions: {{ext.e2b: {{secrets: {{E2B_API_KEY: {{ref: "{VALUE}"}}}}}}}}')
    with pytest.raises(Invalid, match=r"extensions\.ext\.e2b\.secrets\.E2B_API_KEY\.ref") as caught:
        load_settings(tmp_path, {})
    assert VALUE not in caught.value.message
