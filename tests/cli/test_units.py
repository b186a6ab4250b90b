"""install-units: texts that systemd and cron read as they are meant."""

from __future__ import annotations

import shlex
from pathlib import Path

from sandboxer.cli.units import crontab, service, unit_directory

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


def test_units_are_the_users_own_unless_root_asks() -> None:
    assert unit_directory({"HOME": "/home/u"}, root=False) == Path("/home/u/.config/systemd/user")
    assert unit_directory({"HOME": "/root"}, root=True) == Path("/etc/systemd/system")
