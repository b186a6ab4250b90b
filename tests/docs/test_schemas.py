"""docs/schemas: generated from the models, and true of what is really answered."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from sandboxer.doctor import examine
from sandboxer.errors import TREE
from sandboxer.events import payload
from tests.cli.running import Command
from tests.docs.pages import ROOT
from tests.installations import create, installed

SCHEMAS = ROOT / "docs" / "schemas"


def fits(name: str, document: Any) -> None:
    """Assert that a document is what the schema of this name says."""
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    problems = [
        f"{error.instance_path}: {error.message}" for error in jsonschema_rs.validator_for(schema).iter_errors(document)
    ]
    assert problems == []


def test_the_schemas_are_those_of_the_models() -> None:
    words = [sys.executable, str(ROOT / "scripts" / "schemas"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), f"run `make schemas`: {done.stdout}{done.stderr}"


def test_real_documents_fit_their_schemas(tmp_path: Path) -> None:
    here = installed(tmp_path)
    ready = create(here, name="one", inputs={"greeting": "hi"}, labels={"team": "blue"})
    ended = here.manager.destroy(create(here).id)
    for record in (ready, ended):
        fits("sandbox", json.loads(json.dumps(here.manager.document(record))))
    for event in here.manager.events():
        fits("event", payload(event))
        assert payload(event)["detail"]["sandbox_id"] in (ready.id, ended.id)


def test_what_the_command_prints_fits_its_schema(tmp_path: Path) -> None:
    sandboxer = Command(tmp_path)
    made = sandboxer("create", "--profile", "profile.fake", "--name", "box", "--json").document
    fits("sandbox", made)
    for name, words in {
        "sandboxes": ("list", "--all"),
        "plan": ("create", "--profile", "profile.fake", "--dry-run"),
        "route": ("route", "explain", "--profile", "profile.fake"),
        "report": ("expire",),
        "profiles": ("profiles", "list"),
        "extensions": ("extensions", "list"),
        "extension": ("extensions", "show", "ext.compose-ssh"),
        "token": ("tokens", "create", "ops", "--role", "admin"),
        "tokens": ("tokens", "list"),
        "audit": ("audit", "list"),
        "events": ("events", "list"),
        "exec": ("exec", "box", "--json", "--", "true"),
        "run": ("run", "--profile", "profile.fake", "--json", "--", "true"),
        "error": ("get", "nothing-here"),
    }.items():
        asked = words if "--json" in words else (*words, "--json")
        fits(name, sandboxer(*asked).document)


def test_the_violations_of_a_real_refusal_fit_the_schema_and_nothing_else_does(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "compose.yaml").write_text("services: {a: {image: nginx, privileged: true, invented: 1}}\n")
    words = ("create", "--profile", "profile.compose-e2e", "--host", "local", "--input", f"repo={repo}", "--dry-run")
    refused = Command(tmp_path)(*words, "--json").document
    fits("error", refused)
    violations = refused["error"]["details"]["violations"]
    assert {one["grant"] for one in violations} == {"privileged", None}
    violations[0]["more"] = 1
    with pytest.raises(AssertionError, match="more"):
        fits("error", refused)


def test_every_error_fits_the_schema() -> None:
    for error in TREE:
        fits("error", {"error": error("why", hint="do this").document()})
        if error.code != "interrupted":
            more = error("why", hint="do this", sandbox_id="k3v9x2m7q4ta", details={"a": 1})
            fits("error", {"error": more.document()})


def test_what_doctor_finds_fits_its_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path).close()
    for name, value in Command(tmp_path).environment.items():
        monkeypatch.setenv(name, value)
    findings = [{"subject": f.subject, "level": f.level, "text": f.text, "hint": f.hint} for f in examine()]
    fits("findings", {"findings": findings, "ok": True})


def test_what_people_write_fits_its_schema() -> None:
    import yaml

    for kind, name in {"profiles": "profile", "extensions": "manifest"}.items():
        for file in (ROOT / kind).glob("*.yaml"):
            fits(name, yaml.safe_load(file.read_text()))


def test_the_check_sees_a_document_that_does_not_fit(tmp_path: Path) -> None:
    here = installed(tmp_path)
    document = json.loads(json.dumps(here.manager.document(create(here))))
    del document["state"]
    with pytest.raises(AssertionError):
        fits("sandbox", document)
    with pytest.raises(AssertionError):
        fits("sandbox", {**document, "state": "sleeping"})
    with pytest.raises(AssertionError):
        fits("error", {"error": {"code": "odd", "message": "", "hint": "", "retryable": None, "outcome": "failed"}})
