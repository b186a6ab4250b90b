"""The compose file that is brought up: which one, and how it differs from the repository's."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.errors import Invalid, SandboxerError, Unsupported
from sandboxer.extensions.compose_ssh.composefile import ComposeFile, check, read, rewrite
from sandboxer.extensions.compose_ssh.document import dump, load
from sandboxer.extensions.compose_ssh.options import Publish

LABELS = {"sandboxer.id": "k3v9x2m7q4ta", "sandboxer.expires": "12"}


def parsed(text: str) -> ComposeFile:
    document = load(textwrap.dedent(text).encode(), name="compose.yaml")
    check(document, name="compose.yaml")
    return ComposeFile(path="compose.yaml", document=document)


def rewritten(text: str, *, publish: Publish = "remapped", podman: bool = False) -> dict[str, Any]:
    data = rewrite(parsed(text), publish=publish, labels=LABELS, podman=podman)
    return dict(yaml.load(data, Loader=yaml.BaseLoader))  # noqa: S506 - it makes strings only


# -- which file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    ["../compose.yaml", "/etc/passwd", "a/../../x", "nope.yaml", "link.yaml", "folder", "loop", "\0", ".", "fifo"],
)
def test_a_file_outside_of_the_repository_or_that_is_none_is_invalid(tmp_path: Path, wanted: str) -> None:
    import os

    (tmp_path / "outside.yaml").write_text("services: {main: {image: a}}\n")
    repo = tmp_path / "repo"
    (repo / "folder").mkdir(parents=True)
    (repo / "link.yaml").symlink_to("../outside.yaml")
    (repo / "loop").symlink_to("loop")
    os.mkfifo(repo / "fifo")
    with pytest.raises(Invalid) as caught:
        read(repo, wanted)
    assert caught.value.hint


def test_a_link_inside_of_the_repository_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text("services: {main: {image: a}}\n")
    (tmp_path / "compose.yaml").symlink_to("real.yaml")
    assert list(read(tmp_path, "compose.yaml").services) == ["main"]


@pytest.mark.parametrize(
    "text",
    [
        "x: 1", "services: {}", "services: [a]", "services:", "services: {web: 3}", "services: {-rm: {image: a}}",
        "services: {'a b': {image: a}}", "services: {\"$(id)\": {image: a}}",
        "services: {a: {image: b}}\nnetworks: [a]", "services: {a: {image: b}}\nvolumes: {a: [b]}",
        "web: {image: old format}",
    ],
)  # fmt: skip
def test_what_has_not_the_shape_of_a_compose_file_is_invalid(text: str) -> None:
    with pytest.raises(Invalid):
        parsed(text)


# -- how it is rewritten --------------------------------------------------------------------------------------------


def test_everything_is_labelled() -> None:
    got = rewritten(
        """
        services:
          a: {image: x}
          b: {image: x, labels: [mine=1], networks: [back]}
          c: {image: x, labels: {mine: 1, sandboxer.id: forged}, network_mode: host}
        networks: {back: {driver: bridge}, ours: {labels: {k: v}}, theirs: {external: true}}
        volumes: {data: , old: {external: {name: x}}}
        """
    )
    labels = {**LABELS}
    assert got["services"]["a"]["labels"] == labels
    assert got["services"]["b"]["labels"] == ["mine=1", "sandboxer.id=k3v9x2m7q4ta", "sandboxer.expires=12"]
    assert got["services"]["c"]["labels"] == {"mine": "1", **labels}
    assert got["networks"]["back"] == {"driver": "bridge", "labels": labels}
    assert got["networks"]["ours"] == {"labels": {"k": "v", **labels}}
    assert got["networks"]["theirs"] == {"external": "true"}
    assert got["networks"]["default"] == {"labels": labels}
    assert got["volumes"] == {"data": {"labels": labels}, "old": {"external": {"name": "x"}}}


def test_the_default_network_is_named_only_where_it_is_used() -> None:
    assert "networks" not in rewritten("services: {a: {image: x, network_mode: none}}")
    assert list(rewritten("services: {a: {image: x, networks: [n]}}\nnetworks: {n: }")["networks"]) == ["n"]


def test_an_empty_section_goes_because_not_every_front_end_takes_it() -> None:
    got = rewritten("services: {a: {image: x, network_mode: none}}\nnetworks:\nvolumes: ~\n")
    assert list(got) == ["services"]


@pytest.mark.parametrize(
    ("publish", "podman", "ports", "named"),
    [
        ("declared", False, ["8080:80"], True),
        ("declared", True, ["8080:80"], False),
        ("remapped", False, ["127.0.0.1::80"], False),
        ("none", False, None, False),
    ],
)
def test_ports_and_fixed_container_names(publish: Publish, podman: bool, ports: Any, named: bool) -> None:
    text = 'services: {web: {image: x, ports: ["8080:80"], expose: ["90"], container_name: fixed}}'
    web = rewritten(text, publish=publish, podman=podman)["services"]["web"]
    assert web.get("ports") == ports
    assert web["expose"] == ["90"]
    assert ("container_name" in web) is named
    assert web.get("networks") == (None if named else {"default": {"aliases": ["fixed"]}})


@pytest.mark.parametrize(
    ("networks", "aliased"),
    [
        ("[a, b]", {"a": {"aliases": ["fixed"]}, "b": {"aliases": ["fixed"]}}),
        ("{a: , b: {aliases: [x]}}", {"a": {"aliases": ["fixed"]}, "b": {"aliases": ["x", "fixed"]}}),
    ],
)
def test_a_container_name_that_goes_stays_an_alias(networks: str, aliased: Any) -> None:
    got = rewritten(
        f"services: {{w: {{image: x, container_name: fixed, networks: {networks}}}}}\nnetworks: {{a: , b: }}"
    )
    assert got["services"]["w"]["networks"] == aliased


@pytest.mark.parametrize("publish", ["declared", "remapped", "none"])
def test_names_that_two_sandboxes_would_share_go(publish: Publish) -> None:
    got = rewritten(
        "name: theirs\nservices: {a: {image: x}}\nnetworks: {default: {name: n}}\nvolumes: {v: {name: precious}}",
        publish=publish,
    )
    assert "name" not in got
    assert "name" not in got["networks"]["default"]
    assert "name" not in got["volumes"]["v"]


def test_what_is_inherited_by_anchor_is_remapped_too() -> None:
    got = rewritten('x-base: &b {image: x, ports: ["1:2"], container_name: c}\nservices: {a: {<<: *b}, b: {<<: *b}}')
    assert [got["services"][name]["ports"] for name in "ab"] == [["127.0.0.1::2"]] * 2
    assert "container_name" not in got["services"]["b"]


@pytest.mark.parametrize(
    "text", ["include: [other.yaml]\nservices: {a: {image: x}}", "services: {a: {extends: {file: o.yaml, service: s}}}"]
)
def test_other_files_are_refused_where_their_ports_would_have_to_be_remapped(text: str) -> None:
    with pytest.raises(Unsupported) as caught:
        rewritten(text)
    assert "docker compose config" in caught.value.hint
    assert rewritten(text, publish="declared")["services"]["a"]["labels"] == LABELS


def test_interpolation_is_left_to_the_front_end_and_labels_are_not_interpolated() -> None:
    file = parsed('services: {a: {image: "x:${TAG:-1}", environment: {A: $B, C: yes}}}')
    data = rewrite(file, publish="remapped", labels={"sandboxer.profile": "a$b"}, podman=True)
    got = yaml.load(data, Loader=yaml.BaseLoader)  # noqa: S506 - it makes strings only
    assert got["services"]["a"]["image"] == "x:${TAG:-1}"
    assert got["services"]["a"]["environment"] == {"A": "$B", "C": "yes"}
    assert got["services"]["a"]["labels"] == {"sandboxer.profile": "a$$b"}
    assert got["x-podman"] == {"in_pod": "false"}
    assert b"C: yes" in data.replace(b'"C"', b"C")


def test_old_format_numbers_are_raised_to_one_that_knows_labels() -> None:
    assert rewritten('version: "2"\nservices: {a: {image: x}}')["version"] == "2.1"
    assert rewritten('version: "3"\nservices: {a: {image: x}}')["version"] == "3"


@pytest.mark.parametrize(
    ("service", "required"),
    [
        ("{image: x}", {"a": 1}),
        ("{image: x, scale: 3}", {"a": 3}),
        ("{image: x, scale: 0}", {}),
        ("{image: x, deploy: {replicas: 4}}", {"a": 1}),
        ("{image: x, deploy: {replicas: 0}}", {}),
        ("{image: x, profiles: [debug]}", {}),
        ("{image: x, scale: $N}", {"a": 1}),
    ],
)
def test_which_services_must_come_up(service: str, required: dict[str, int]) -> None:
    assert parsed(f"services: {{a: {service}}}").required == required


WORDS = (
    "services networks volumes a ports labels container_name name default external image x-podman include extends file "
    "deploy scale target network_mode profiles build version"
)
NAMES = st.sampled_from(WORDS.split())
ANY = st.recursive(
    st.text(max_size=5) | st.sampled_from(["80", "8080:80", "true", "${X}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@given(
    ANY.filter(lambda value: isinstance(value, dict)), st.sampled_from(["declared", "remapped", "none"]), st.booleans()
)
def test_any_mapping_is_rewritten_or_refused(document: dict[str, Any], publish: Publish, podman: bool) -> None:
    for candidate in (
        document,
        {"services": {"a": document}},
        {"services": {"a": {"image": "x"}}, "networks": document},
    ):
        try:
            loaded = load(dump(candidate), name="x")
            check(loaded, name="x")
            file = ComposeFile(path="x", document=loaded)
            rewrite(file, publish=publish, labels=LABELS, podman=podman)
            assert file.required is not None
            assert file.builds in (True, False)
        except SandboxerError as error:
            assert isinstance(error, Invalid | Unsupported)
