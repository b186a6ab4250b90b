"""install-units: texts that systemd and cron read as they are meant, and what `doctor` says when nobody runs them."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandboxer.cli.units import TIMER, crontab, service, unit_directory
from sandboxer.manager.sweeps.log import FILE
from sandboxer.models import Sandbox
from tests.cli.running import Command
from tests.installations import create, installed

ODD = {"SANDBOXER_DATA_DIR": '/srv/a b/50%"x'}


def test_the_line_of_a_crontab_survives_odd_paths() -> None:
    line = crontab(["/opt/py thon", "-m", "sandboxer", "expire", "--apply"], ODD)
    assert line.startswith("*/5 * * * * ")
    assert "%" not in line.replace("\\%", "")
    words = shlex.split(line.removeprefix("*/5 * * * * ").replace("\\%", "%"))
    assert words == ['SANDBOXER_DATA_DIR=/srv/a b/50%"x', "/opt/py thon", "-m", "sandboxer", "expire", "--apply"]


def test_the_unit_quotes_what_systemd_would_read_otherwise() -> None:
    text = service(["/opt/py$thon", "expire"], ODD, Path("/etc/50%/environment"))
    assert 'Environment="SANDBOXER_DATA_DIR=/srv/a b/50%%\\"x"\n' in text
    assert 'ExecStart="/opt/py$$thon" "expire"\n' in text
    assert "EnvironmentFile=-/etc/50%%/environment\n" in text


@pytest.mark.parametrize("odd", ["a\nExecStart=/bin/evil", "a\rb", "a\x1b[2Jb", "a\udcffb", "a\u2028b"], ids=ascii)
@pytest.mark.parametrize("what", ["data", "config"])
def test_a_path_that_a_unit_cannot_hold_is_refused(tmp_path: Path, what: str, odd: str) -> None:
    """A line break would end the line, and begin one that systemd or cron obeys."""
    command = Command(tmp_path)
    folder = tmp_path / odd
    folder.mkdir(parents=True)
    command.environment[f"SANDBOXER_{what.upper()}_DIR"] = str(folder)
    for more in ([], ["--apply"]):
        answer = command("install-units", *more, "--directory", f"{tmp_path}/units", "--json")
        assert answer.status == 2, answer
        assert "Traceback" not in answer.stderr
        assert f"SANDBOXER_{what.upper()}_DIR" in answer.error["hint"]
    assert not (tmp_path / "units").exists()


def test_a_unit_that_is_a_link_is_replaced_and_not_followed(command: Command, tmp_path: Path) -> None:
    units, victim = tmp_path / "units", tmp_path / "victim"
    units.mkdir()
    victim.write_text("precious")
    (units / "sandboxer-expire.service").symlink_to(victim)
    assert command("install-units", "--apply", "--directory", str(units)).status == 0
    assert victim.read_text() == "precious"
    assert "ExecStart=" in (units / "sandboxer-expire.service").read_text()


def test_units_are_the_users_own_unless_root_asks() -> None:
    assert unit_directory({"HOME": "/home/u"}, root=False) == Path("/home/u/.config/systemd/user")
    assert unit_directory({"HOME": "/root"}, root=True) == Path("/etc/systemd/system")


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def test_units_are_shown_and_nothing_is_written_without_apply(command: Command, tmp_path: Path) -> None:
    answer = command("install-units", "--directory", f"{tmp_path}/units")
    assert answer.status == 0, answer.stderr
    assert "[Timer]" in answer.stdout
    assert "*/5 * * * * " in answer.stdout
    assert "install-units --apply" in answer.stderr
    assert not (tmp_path / "units").exists()


def test_units_that_were_written_run_expire_of_this_installation(command: Command, tmp_path: Path) -> None:
    """What the unit starts is run here as systemd would: its words, and its environment alone."""
    answer = command("install-units", "--apply", "--directory", f"{tmp_path}/units", "--json")
    assert answer.status == 0, answer.stderr
    assert answer.document["applied"] is True
    assert "enable --now sandboxer-expire.timer" in answer.document["next"]
    units = tmp_path / "units"
    assert sorted(path.name for path in units.iterdir()) == ["sandboxer-expire.service", "sandboxer-expire.timer"]
    assert (units / "sandboxer-expire.timer").read_text() == TIMER
    settings: dict[str, str] = {}
    words: list[str] = []
    for line in (units / "sandboxer-expire.service").read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "Environment":
            key, _, text = shlex.split(value)[0].partition("=")
            settings[key] = text
        elif name == "ExecStart":
            words = shlex.split(value)
    done = subprocess.run(words, env=settings, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert json.loads((tmp_path / "data" / FILE).read_text())["last_success"] is not None
    assert command("install-units", "--apply", "--directory", str(units)).status == 0, "again is fine"


def test_a_directory_of_its_own_is_told_to_systemd_by_its_whole_name(command: Command, tmp_path: Path) -> None:
    """`enable` finds a unit only where systemd looks; a relative name would be told to whoever stands elsewhere."""
    found = command("install-units", "--directory", "my units", "--json").document
    paths = [unit["path"] for unit in found["units"]]
    assert paths == [f"{tmp_path}/my units/sandboxer-expire.{kind}" for kind in ("service", "timer")]
    words = shlex.split(found["next"])
    assert words[words.index("link") + 1 :][:2] == paths
    assert " link " not in command("install-units", "--json").document["next"]


def test_an_empty_directory_is_refused(command: Command, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    answer = command("install-units", "--apply", "--directory", "", "--json")
    assert (answer.status, answer.error["code"]) == (2, "invalid")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_cannot_be_written_is_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    answer = command("install-units", "--apply", "--directory", f"{tmp_path}/taken/units", "--json")
    assert answer.status == 11
    assert f"{tmp_path}/taken/units" in answer.error["message"]


def _found(command: Command) -> dict[str, Any]:
    """What doctor says of `expire`."""
    findings = json.loads(command("doctor", "--json").stdout)["findings"]
    (found,) = [one for one in findings if one["subject"] == "expire"]
    return dict(found)


def test_doctor_tells_when_nobody_runs_expire(command: Command, tmp_path: Path) -> None:
    assert _found(command)["level"] == "ok", "nothing has an end"
    here = installed(tmp_path)
    record = create(here, ttl=3600)
    never = _found(command)
    assert (never["level"], never["text"]) == (
        "warning",
        "1 sandboxes have an end, and the last run of expire that left nothing: never",
    )
    assert "install-units" in never["hint"]
    assert here.manager.expire(apply=True).remaining == []
    assert _found(command)["level"] == "ok"
    log = json.loads((tmp_path / "data" / FILE).read_text())
    (tmp_path / "data" / FILE).write_text(json.dumps({**log, "last_success": time.time() - 1000}))
    assert _found(command)["level"] == "warning", "it was too long ago"
    here.manager.expire(apply=True)

    def long_over(now: Sandbox) -> Sandbox:
        return msgspec.structs.replace(now, expires_at=time.time() - 1000)

    here.manager.services.edit(record.id, long_over)
    over = _found(command)
    assert (over["level"], over["text"].partition(";")[0]) == ("warning", "1 sandboxes are over and still there")
    here.manager.expire(apply=True)
    assert _found(command)["level"] == "ok"
