"""A mistake in a file is told with the file, the line and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxer.config.settings import load_settings
from sandboxer.config.yaml_document import load
from sandboxer.errors import Invalid
from sandboxer.models import Profile
from tests.cli.running import Command

TOKEN = "  - name: {}\n    ref: env:A\n    role: admin\n"
HEAD = "id: profile.own\nversion: 1.0.0\nextension: ext.native\n"


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("hosts:\n  a:\n    port: 22\n  b:\n    addres: x\n", 5, "hosts.b.addres"),
        ("hosts:\n  a:\n    port: 22\n  b:\n    port: x\n", 5, "hosts.b.port"),
        ("hosts:\n  a: {}\n  b: null\n", 3, "hosts.b"),
        ("hosts:\n  a:\n    env: {A: b}\n  b:\n    env:\n      A: b\n      C: 1\n", 7, "hosts.b.env.C"),
        ("budgets:\n  agt:a: {usd: '1'}\n  agt:b: {usd: 1}\n", 3, "budgets.agt:b.usd"),
        ("api:\n  allowed_roots:\n    - /a\n    - 5\n", 4, "api.allowed_roots.1"),
        ("api:\n  allowed_roots:\n    - /a\n    - b\n", 4, "api.allowed_roots[1]"),
        ("api:\n  tokens:\n  - name: a\n    ref: env:A\n    role: use\n", 3, "api.tokens[0]"),
        (f"api:\n  tokens:\n{TOKEN.format('a')}{TOKEN.format('a')}", 6, "api.tokens[1].name"),
        (f"api:\n  tokens:\n{TOKEN.format('a')}{TOKEN.format('b')}    expires: soon\n", 9, "api.tokens[1].expires"),
        (f"api:\n  tokens:\n{TOKEN.format('a')}    consumer: bob\n", 6, "api.tokens[0].consumer"),
        (f"api:\n  tokens:\n{TOKEN.format('a')}    budget: x\n", 6, "api.tokens[0].budget"),
        ("api:\n  tokens:\n  - name: a\n    role: admin\n    ref: secret\n", 5, "api.tokens[0].ref"),
        ("quotas:\n  'agt:a': {live: 1}\n  'agt:b.c': {live: -1}\n", 3, "quotas.agt:b.c.live"),
        ("defaults:\n  ttl: soon\n", 2, "defaults.ttl"),
        ("hosts: {}\ndefaults:\n  actor: bob\n", 3, "defaults.actor"),
        ("hosts:\n  a: {}\n  b:\n    port: 70000\n", 4, "hosts.b.port"),
        ("hosts:\n  b:\n    work_dir: rel\n", 3, "hosts.b.work_dir"),
        ("api:\n  port: 70000\n", 2, "api.port"),
    ],
)
def test_a_mistake_in_config_yaml_has_its_line_and_its_key(tmp_path: Path, text: str, line: int, key: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(Invalid) as raised:
        load_settings(tmp_path, {})
    assert f"{file}, line {line}: " in raised.value.message
    assert key in raised.value.message


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("inputs:\n  a: {type: string}\n  b: {typ: string}\n", 6, "inputs.b.typ"),
        ("inputs:\n  a: {type: string}\n  b:\n    type: float\n", 7, "inputs.b.type"),
        ("secrets:\n  A: {ref: 'env:A'}\n  B: {reff: 'env:A'}\n", 6, "secrets.B.reff"),
    ],
)
def test_a_mistake_in_a_profile_has_its_line_and_its_key(tmp_path: Path, text: str, line: int, key: str) -> None:
    file = tmp_path / "profile.own.yaml"
    file.write_text(HEAD + text)
    with pytest.raises(Invalid) as raised:
        load(file, Profile)
    assert f"{file}, line {line}: " in raised.value.message
    assert f"(key {key})" in raised.value.message


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("extension: ext.native\noptions:\n  limits: {}\n  colour: red\n", 6, "options.colour"),
        ("extension: ext.native\noptions:\n  limits:\n    memory: much\n", 5, "options.limits"),
        (
            "route:\n  candidates: [ext.native]\n  options:\n    ext.native:\n      colour: red\n",
            7,
            "route.options.ext.native.colour",
        ),
    ],
)
def test_an_option_that_the_extension_does_not_know_has_its_line_and_its_key(
    tmp_path: Path, text: str, line: int, key: str
) -> None:
    sandboxer = Command(tmp_path)
    file = tmp_path / "config" / "profiles" / "profile.own.yaml"
    file.write_text("id: profile.own\nversion: 1.0.0\n" + text)
    validate = ("profiles", "validate")
    for words in (validate, ("create", "--profile", "profile.own"), (*validate, str(file))):
        answer = sandboxer(*words, "--json")
        assert (answer.status, answer.error["code"]) == (2, "invalid")
        assert f"{file}, line {line}: " in answer.error["message"]
        assert f"(key {key})" in answer.error["message"]


def test_a_profile_of_an_extension_that_is_not_there_names_its_file(tmp_path: Path) -> None:
    sandboxer = Command(tmp_path)
    file = tmp_path / "config" / "profiles" / "profile.own.yaml"
    file.write_text("id: profile.own\nversion: 1.0.0\nextension: ext.gone\n")
    answer = sandboxer("profiles", "validate", "--json")
    assert (answer.status, answer.error["code"]) == (3, "not_found")
    assert str(file) in answer.error["message"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("inputs: {a: {type: int, default: x}}", "inputs.a.default"),
        ("inputs: {a: {choices: [x, y], default: z}}", "inputs.a.default"),
        ("inputs: {a: {type: bool, choices: ['true']}}", "inputs.a.choices"),
        ("inputs: {a: {type: int, choices: [x]}}", "inputs.a.choices"),
        ("placement: {hosts: [-oProxyCommand=x]}", "placement.hosts"),
    ],
)
def test_a_profile_that_nobody_could_create_from_is_not_valid(tmp_path: Path, text: str, key: str) -> None:
    sandboxer = Command(tmp_path)
    (tmp_path / "own.yaml").write_text(HEAD + text)
    answer = sandboxer("profiles", "validate", "own.yaml", "--json")
    assert (answer.status, answer.error["code"]) == (2, "invalid")
    assert key in answer.error["message"]


def test_an_input_may_be_one_of_some_numbers(tmp_path: Path) -> None:
    sandboxer = Command(tmp_path)
    text = (tmp_path / "config/profiles/profile.fake.yaml").read_text()
    (tmp_path / "config/profiles/profile.fake.yaml").write_text(text + "  size: {type: int, choices: ['1', '2']}\n")
    made = sandboxer("create", "--profile", "profile.fake", "--input", "size=2", "--json")
    assert made.document["inputs"] == {"size": 2}
    assert sandboxer("create", "--profile", "profile.fake", "--input", "size=3", "--json").status == 2


def test_doctor_tells_of_a_manifest_that_is_wrong_beside_everything_else(tmp_path: Path) -> None:
    sandboxer = Command(tmp_path)
    file = tmp_path / "config" / "extensions" / "ext.own.yaml"
    file.write_text("id: ext.own\nversion: 1.0.0\nklass: a:B\n")
    answer = sandboxer("doctor", "--json")
    assert answer.status == 6
    found = {finding["subject"]: finding for finding in answer.document["findings"]}
    assert f"{file}, line 3" in found["extensions"]["text"]
    assert {"store", "host local", "profiles", "ssh"} <= set(found)


def test_doctor_shows_where_the_records_lie_and_where_the_sandboxes_of_this_machine_do(tmp_path: Path) -> None:
    """They are two places: SANDBOXER_DATA_DIR moves the first alone."""
    answer = Command(tmp_path)("doctor", "--json", SANDBOXER_DATA_DIR=str(tmp_path / "records"))
    found = {finding["subject"]: finding["text"] for finding in answer.document["findings"]}
    assert str(tmp_path / "records") in found["store"]
    assert str(tmp_path / "records") not in found["host local"]
    assert "work directory /" in found["host local"]


@pytest.mark.parametrize(
    "given", [{"HOME": "rel"}, {"HOME": ""}, {"XDG_DATA_HOME": "rel", "SANDBOXER_DATA_DIR": ""},
              {"SANDBOXER_DATA_DIR": "rel"}, {"SANDBOXER_DATA_DIR": "./data"}, {"SANDBOXER_DATA_DIR": "~other/data"}]
)  # fmt: skip
def test_a_place_of_data_that_moves_with_the_current_directory_is_refused(
    tmp_path: Path, given: dict[str, str]
) -> None:
    """Data was made below the current directory, and from another one `destroy` said that it had destroyed."""
    sandboxer = Command(tmp_path, more=given)
    before = sorted(tmp_path.rglob("*"))
    for words in (("create", "--profile", "profile.fake"), ("destroy", "nobody"), ("list",)):
        answer = sandboxer(*words, "--json")
        assert (answer.status, answer.error["code"]) == (2, "invalid")
        assert next(iter(given)) in answer.error["message"]
        assert f"set {next(iter(given))} to" in answer.error["hint"]
    assert sorted(tmp_path.rglob("*")) == before
    assert sandboxer("--version").status == 0


def test_a_variable_that_is_empty_counts_as_unset(tmp_path: Path) -> None:
    """But for HOME. So says the specification of the XDG variables."""
    answer = Command(tmp_path)("doctor", "--json", SANDBOXER_DATA_DIR="", XDG_DATA_HOME="")
    found = {finding["subject"]: finding["text"] for finding in answer.document["findings"]}
    assert str(tmp_path / "home" / ".local" / "share" / "sandboxer") in found["store"]
