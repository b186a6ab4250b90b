"""Profiles, manifests, settings: precedence, and mistakes told with file, line and key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandboxer.config.catalog import MAX_INPUTS, Catalog, resolve_inputs, shelves
from sandboxer.config.paths import Paths, find_paths
from sandboxer.config.settings import load_settings
from sandboxer.config.yaml_document import parse
from sandboxer.errors import Invalid, NotFound
from sandboxer.models import Profile, Settings

PROFILE = """\
id: profile.mine
version: 1.0.0
extension: ext.native
ttl:
  default: 1h
"""


def shelf(tmp_path: Path, **files: str) -> Paths:
    for name, text in files.items():
        file = tmp_path / "config" / "profiles" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Paths(data=tmp_path / "data", config=tmp_path / "config")


def test_every_built_in_profile_and_manifest_is_valid(tmp_path: Path) -> None:
    profiles, manifests = shelves(shelf(tmp_path))
    assert {profile.id for profile, _ in profiles.all()} >= {"profile.native", "profile.sandbox-canary"}
    assert {manifest.id for manifest, _ in manifests.all()} >= {"ext.native", "ext.compose-ssh"}


def test_a_users_profile_replaces_the_built_in_one_whatever_its_file_is_called(tmp_path: Path) -> None:
    text = PROFILE.replace("profile.mine", "profile.native").replace("1.0.0", "9.9.9")
    profiles, _ = shelves(shelf(tmp_path, anything=text))
    assert profiles.get("profile.native").version == "9.9.9"
    assert [p.version for p, _ in profiles.all() if p.id == "profile.native"] == ["9.9.9"]


def test_what_was_found_is_looked_for_again_as_soon_as_anything_has_changed(tmp_path: Path) -> None:
    """One create asks again and again; whatever a person does to the files in between counts from then on."""
    mine, builtin = tmp_path / "mine", tmp_path / "builtin"
    age = 0

    def write(path: Path, version: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"id: profile.one\nversion: {version}\ntitle: One\nextension: ext.native\n")
        settle()

    def settle() -> None:
        """All that is there was written a while ago: only then is anything kept."""
        nonlocal age
        age += 10
        for path in (tmp_path, *tmp_path.rglob("*")):
            if path.stat().st_mtime > 1_700_000_000:
                os.utime(path, (1_600_000_000 + age, 1_600_000_000 + age))

    def version() -> str:
        assert shelf.get("profile.one") is shelf.get("profile.one")
        return shelf.get("profile.one").version

    mine.mkdir()
    shelf = Catalog("profile", Profile, (mine, builtin))
    write(builtin / "profile.one.yaml", "1.0.0")
    assert version() == "1.0.0"
    write(builtin / "profile.one.yaml", "1.0.1")
    assert version() == "1.0.1"
    write(mine / "other.yaml", "2.0.0")
    assert version() == "2.0.0"
    write(mine / "profile.one.yaml", "3.0.0")
    assert version() == "3.0.0"
    write(mine / "profile.one.yaml", "3.0.1")
    assert version() == "3.0.1"
    (mine / "profile.one.yaml").unlink()
    settle()
    assert version() == "2.0.0"
    (mine / "other.yaml").write_text((mine / "other.yaml").read_text().replace("profile.one", "profile.two"))
    settle()
    assert version() == "1.0.1"
    (mine / "other.yaml").unlink()
    mine.rmdir()
    assert version() == "1.0.1"
    (builtin / "profile.one.yaml").unlink()
    with pytest.raises(NotFound):
        shelf.get("profile.one")


def test_a_broken_file_of_another_profile_does_not_stop_this_one(tmp_path: Path) -> None:
    profiles, _ = shelves(shelf(tmp_path, broken="id: [", **{"profile.mine": PROFILE}))
    assert profiles.get("profile.mine").id == "profile.mine"
    with pytest.raises(Invalid):
        profiles.all()


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (PROFILE + "colour: red\n", 6, "colour"),
        (PROFILE.replace("default: 1h", "defualt: 1h"), 5, "defualt"),
        (PROFILE + "inputs:\n  repo:\n    type: file\n", 8, "inputs"),
        (PROFILE + "placement: {hosts: [a, 5]}\n", 6, "placement.hosts.1"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(tmp_path: Path, text: str, line: int, key: str) -> None:
    profiles, _ = shelves(shelf(tmp_path, **{"profile.mine": text}))
    with pytest.raises(Invalid) as caught:
        profiles.get("profile.mine")
    message = caught.value.message
    assert f"profile.mine.yaml, line {line}" in message
    assert key in message


@pytest.mark.parametrize(
    "change",
    [
        ("version: 1.0.0", "version: one"),
        ("extension: ext.native", "title: nothing serves it"),
        ("default: 1h", "default: 1 hour"),
        ("default: 1h", "default: 2h\n  max: 1h"),
        ("id: profile.mine", "id: mine"),
        ("id: profile.mine", "id: profile.mine\nid: profile.mine"),
    ],
)
def test_what_types_cannot_say_is_checked_too(tmp_path: Path, change: tuple[str, str]) -> None:
    _, manifests = shelves(shelf(tmp_path, **{"profile.mine": PROFILE.replace(*change)}))
    profiles, _ = shelves(Paths(data=tmp_path, config=tmp_path / "config"))
    with pytest.raises((Invalid, NotFound)):
        profiles.get("profile.mine")
    assert manifests.get("ext.native")


@pytest.mark.parametrize("name", ["profile.nope", "../../etc/passwd", "profile.", "", "profile.\x00", "ext.native"])
def test_a_profile_that_is_not_there_is_not_found(tmp_path: Path, name: str) -> None:
    profiles, _ = shelves(shelf(tmp_path))
    with pytest.raises(NotFound):
        profiles.get(name)


@settings(max_examples=200)
@given(st.binary(max_size=300))
@example(b"(\t")  # the two parsers of PyYAML disagree about it
def test_any_bytes_are_a_document_or_invalid(raw: bytes) -> None:
    """Promise 30."""
    for model in (Profile, Settings):
        try:
            parse(raw, model, source="x.yaml")
        except Invalid as error:
            assert error.hint


def test_an_alias_bomb_is_refused_or_read_without_growing(tmp_path: Path) -> None:
    bomb = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n".encode() for n in range(20)
    )
    with pytest.raises(Invalid):
        parse(bomb, Settings, source="x.yaml")


def test_inputs_are_typed_and_complete(tmp_path: Path) -> None:
    text = PROFILE + (
        "inputs:\n  tree: {type: path, required: true}\n  n: {type: int, default: 3}\n  fast: {type: bool}\n"
        "  size: {type: string, choices: [s, m]}\n"
    )
    profile = parse(text.encode(), Profile, source="x")
    given_ = {"tree": "sub/dir", "fast": "true", "size": "m"}
    values = resolve_inputs(profile, given_, base=tmp_path)
    assert values == {"tree": str(tmp_path.resolve() / "sub" / "dir"), "n": 3, "fast": True, "size": "m"}
    for wrong in ({}, {"tree": ""}, {"tree": "a", "n": "x"}, {"tree": "a", "size": "l"}, {"tree": "a", "what": "b"}):
        with pytest.raises(Invalid) as caught:
            resolve_inputs(profile, wrong, base=tmp_path)
        assert caught.value.hint


def test_inputs_are_no_larger_than_a_record_should_carry(tmp_path: Path) -> None:
    """All records are written at every change: a thousand inputs of a megabyte would stop everybody."""
    text = PROFILE + "inputs:\n  a: {type: string}\n  b: {type: string}\n  n: {type: int}\n"
    profile = parse(text.encode(), Profile, source="x")
    most = {"a": "x" * (MAX_INPUTS // 2), "b": "\u00fc" * (MAX_INPUTS // 4)}
    assert resolve_inputs(profile, most, base=tmp_path) == most
    for wrong in ({**most, "a": most["a"] + "x"}, {"n": 10**18}, {"n": -(10**18)}, {"n": "1" * 19}, {"n": 10**399}):
        with pytest.raises(Invalid):
            resolve_inputs(profile, wrong, base=tmp_path)
    assert resolve_inputs(profile, {"n": 10**18 - 1}, base=tmp_path) == {"n": 10**18 - 1}


def test_the_environment_wins_over_config_yaml(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("state_hub: {url: 'http://a'}\ndefaults: {actor: 'adm:a'}\n")
    environment = {"SANDBOXER_STATE_HUB_URL": "http://b", "SANDBOXER_ACTOR": "agt:b", "SANDBOXER_API_TOKEN": "t"}
    found = load_settings(tmp_path, environment)
    assert (found.state_hub.url, found.defaults.actor, found.api.token) == ("http://b", "agt:b", "t")
    assert load_settings(tmp_path, {}).state_hub.url == "http://a"


@pytest.mark.parametrize(
    ("written", "given", "found"),
    [
        ("null", "abc\n", "abc"), ("' def '", None, "def"), ("def", "  ", "def"), ("def", "", "def"), ("''", " ", None),
        ("def", "abc", "abc"),
    ],
)  # fmt: skip
def test_a_token_is_without_the_blanks_around_it_and_a_blank_one_is_none(
    tmp_path: Path, written: str, given: str | None, found: str | None
) -> None:
    """No header could carry them: the server would be closed to everybody, or open without its token."""
    (tmp_path / "config.yaml").write_text(f"api: {{token: {written}}}\n")
    environment = {} if given is None else {"SANDBOXER_API_TOKEN": given}
    assert load_settings(tmp_path, environment).api.token == found


@pytest.mark.parametrize(
    "text",
    ["hosts: {a: {colour: red}}", "hosts: {a: {port: 70000}}", "hosts: {a: {work_dir: relative}}", "hosts: {'-o': {}}",
     "defaults: {actor: nobody}", "api: {port: '80'}", "api: {allowed_roots: [here]}", 'api: {token: "a\\nb"}',
     "api: {allowed_roots: ['~nobody/x']}", "- a list", "text",
     "extensions: {e2b: {}}", "extensions: {ext.e2b: {max_ttl: soon}}", "extensions: {ext.e2b: {max_live: 0}}",
     "extensions: {ext.e2b: {endpoints: {api: 'ftp://api.e2b.app'}}}",
     "extensions: {ext.e2b: {endpoints: {api: 'https://u:p@api.e2b.app'}}}",
     "extensions: {ext.e2b: {secrets: {KEY: {ref: 'e2b_0123'}}}}",
     "extensions: {ext.e2b: {secrets: {'a b': {ref: 'env:KEY'}}}}",
     "budgets: {nobody: {usd: '5'}}", "budgets: {'*': {usd: 5}}", "budgets: {'*': {usd: '-5'}}",
     "budgets: {'*': {usd: '1e3'}}", "budgets: {'*': {usd: '5', per: year}}", "budgets: {'*': {}}",
     "openbao: {address: 'bao:8200'}", "openbao: {address: 'https://t:s@bao'}", "openbao: {address: 'https://bao?x=1'}",
     "openbao: {token: 'hvs.CAESIJ'}", "openbao: {token: 'cmd:bao print token'}", "openbao: {ca_file: ca.pem}",
     "openbao: {token: 'env:T', app_role: {role_id: r, secret_id: 'env:S'}}",
     "openbao: {app_role: {role_id: r}}", "openbao: {app_role: {role_id: r, secret_id: 'a-secret-id'}}",
     "openbao: {app_role: {role_id: r, secret_id: 'env:S', mount: '../sys'}}"],
)  # fmt: skip
def test_a_wrong_config_yaml_is_invalid(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(Invalid):
        load_settings(tmp_path, {})


def test_directories_follow_the_environment_then_xdg_then_home() -> None:
    assert find_paths({"HOME": "/h"}).data == Path("/h/.local/share/sandboxer")
    assert find_paths({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}).config == Path("/x/sandboxer")
    assert find_paths({"HOME": "/h", "XDG_DATA_HOME": "/x", "SANDBOXER_DATA_DIR": "/d"}).data == Path("/d")


PRICES = "{as_of: '2026-11-21', source: us, vcpu_hour: {usd: '0.05', included: 1, minimum: 0.5}}"


def test_a_date_needs_no_quotes(tmp_path: Path) -> None:
    """YAML 1.1 makes a date of it, where everybody means the text."""
    (tmp_path / "config.yaml").write_text(f"extensions: {{ext.e2b: {{prices: {PRICES.replace(chr(39), '', 2)}}}}}")
    prices = load_settings(tmp_path, {}).extensions["ext.e2b"].prices
    assert prices is not None
    assert prices.as_of == "2026-11-21"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("'2026-11-21'", "'21.11.2026'"),
        ("source: us", "source: ''"),
        ("'0.05'", "'0,05'"),
        ("'0.05'", "'-0.05'"),
        ("'0.05'", "'0.0000000000001'"),
        ("'0.05'", "0.05"),
        ("included: 1", "included: -1"),
        ("minimum: 0.5", "minimum: .nan"),
        ("vcpu_hour: {", "gpu_hour: {T4: {usd: x}}, vcpu_hour: {"),
    ],
)
def test_prices_are_checked_wherever_they_are_written(tmp_path: Path, right: str, wrong: str) -> None:
    assert right in PRICES
    texts = {
        "config.yaml": "hosts: {a: {prices: %s}}\nextensions: {ext.mine: {prices: %s}}\n",
        "extensions/ext.mine.yaml": (
            "id: ext.mine\nversion: 1.0.0\nclass: a:B\nisolation: {class: remote}\n# %s\nprices: %s\n"
        ),
    }
    _, manifests = shelves(Paths(data=tmp_path / "data", config=tmp_path))
    looks: dict[str, Callable[[], object]] = {
        "config.yaml": lambda: load_settings(tmp_path, {}),
        "extensions/ext.mine.yaml": lambda: manifests.get("ext.mine"),
    }
    (tmp_path / "extensions").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_text(text % (PRICES, PRICES))
        looks[name]()
        (tmp_path / name).write_text(text % (PRICES, PRICES.replace(right, wrong)))
        with pytest.raises(Invalid) as caught:
            looks[name]()
        assert name in caught.value.message
        assert "prices" in caught.value.message


def test_an_amount_that_a_profile_requires_is_checked(tmp_path: Path) -> None:
    profiles, _ = shelves(shelf(tmp_path, **{"profile.mine": PROFILE + "require: {max_usd: '1.50 $'}\n"}))
    with pytest.raises(Invalid, match=r"require\.max_usd"):
        profiles.get("profile.mine")


def test_openbaos_own_variables_win_over_config_yaml_and_vaults_are_understood(tmp_path: Path) -> None:
    text = (
        "openbao: {address: 'https://a:8200', namespace: n, ca_file: /a.pem,"
        " app_role: {role_id: r, secret_id: 'file:~/secret-id'}}\n"
    )
    (tmp_path / "config.yaml").write_text(text)
    found = load_settings(tmp_path, {}).openbao
    assert (found.address, found.namespace, found.token) == ("https://a:8200", "n", None)
    assert found.app_role is not None
    assert found.app_role.mount == "approle"
    vault = {"VAULT_ADDR": "http://b", "VAULT_TOKEN": "value", "VAULT_NAMESPACE": "m", "VAULT_CACERT": "/b.pem"}
    found = load_settings(tmp_path, vault).openbao
    assert (found.address, found.namespace, found.ca_file) == ("http://b", "m", "/b.pem")
    assert (found.token, found.app_role) == ("env:VAULT_TOKEN", None)
    found = load_settings(
        tmp_path, {**vault, "BAO_ADDR": "http://c", "BAO_TOKEN": "other", "BAO_NAMESPACE": ""}
    ).openbao
    assert (found.address, found.namespace, found.token) == ("http://c", "m", "env:BAO_TOKEN")
    with pytest.raises(Invalid) as caught:
        load_settings(tmp_path, {"BAO_ADDR": "http://user:word@bao"})
    assert "word" not in caught.value.message


def test_tokens_of_config_yaml_do_not_print(tmp_path: Path) -> None:
    """Promise 28."""
    text = "state_hub: {url: 'http://a', token: t-ken-1}\nfin_hub: {token: t-ken-2}\napi: {token: t-ken-3}\n"
    (tmp_path / "config.yaml").write_text(text)
    found = load_settings(tmp_path, {})
    assert found.api.token == "t-ken-3"
    assert "http://a" in repr(found)
    assert "t-ken" not in f"{found!r} {found.state_hub} {found.api}"
