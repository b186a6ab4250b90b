"""Promise 28: whatever is wrong with a secret or the way to it, the errors say what to do, and not the value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.security.canaries import Watch
from tests.security.scenes import MANIFEST, PROFILE, Scene
from tests.testbed.openbao import OpenBao

pytestmark = pytest.mark.xdist_group("canaries")  # each looks for canaries on the whole machine, and plants some

FREE = "".join(line for line in MANIFEST.splitlines(keepends=True) if not line.startswith("prices"))
BAO_KEY = "  K: {{ref: 'openbao:secret/ci/nested#key'}}\n"
OPENBAO = "openbao: {{address: {bao}, token: 'env:LOGIN'}}\n"
BY_ROLE = "openbao: {{address: {bao}, app_role: {{role_id: {role}, secret_id: 'env:LOGIN'}}}}\n"
NOT_THERE = "http://127.0.0.1:9"
BROKEN: dict[str, dict[str, str]] = {
    # a value where its reference belongs
    "manifest value": {"manifest": "  K: {{ref: '{canary}'}}\n"},
    "manifest scheme": {"manifest": "  K: {{ref: 'key:{canary}'}}\n"},
    "manifest text": {"manifest": "  K: {canary}\n"},
    "manifest other key": {"manifest": "  K: {{value: {canary}}}\n"},
    "manifest not YAML": {"manifest": "  K: {{ref: {canary}: x: ]\n"},
    "profile value": {"profile": "secrets: {{K: {{ref: '{canary}'}}}}\n"},
    "config value": {"config": "extensions: {{ext.echo: {{secrets: {{K: {{ref: '{canary}'}}}}}}}}\n"},
    "config token": {"config": "openbao: {{address: {bao}, token: '{canary}'}}\n"},
    "config secret id": {"config": "openbao: {{address: {bao}, app_role: {{role_id: r, secret_id: '{canary}'}}}}\n"},
    "config list": {"config": "api: {{token: [{canary}]}}\n"},
    "config number": {"config": "state_hub: {{url: {{a: {canary}}}}}\n"},
    # credentials in addresses
    "bao address": {"BAO_ADDR": "http://user:{canary}@127.0.0.1:9", "manifest": "  K: {{ref: 'openbao:a/b#c'}}\n"},
    "endpoint": {"ECHO_API_URL": "http://user:{canary}@127.0.0.1:9"},
    "endpoint in config": {"config": "extensions: {{ext.echo: {{endpoints: {{api: 'http://{canary}@a'}}}}}}\n"},
    "state hub": {"SANDBOXER_STATE_HUB_URL": "http://user:{canary}@127.0.0.1:9"},
    "fin hub": {"SANDBOXER_FIN_HUB_URL": "http://user:{canary}@127.0.0.1:9"},
    "proxy": {"HTTP_PROXY": "http://user:{canary}@127.0.0.1:9", "ECHO_API_URL": "http://198.51.100.7"},
    "proxy of another kind": {"ALL_PROXY": "socks5://user:{canary}@127.0.0.1:9", "ECHO_API_URL": "http://198.51.100.7"},
    # values that cannot be sent
    "line break": {"K": "{canary}\nX-Injected: {canary}"},
    "beyond latin": {"K": "ключ{canary}"},
    "hub token": {"SANDBOXER_STATE_HUB_URL": NOT_THERE, "config": 'state_hub: {{token: "a {canary}"}}\n'},
    # commands
    "cmd complains": {"manifest": "  K: {{ref: 'cmd:{program} 3'}}\n"},
    "cmd is killed": {"manifest": "  K: {{ref: 'cmd:{program} kill'}}\n"},
    "cmd says no text": {"manifest": "  K: {{ref: 'cmd:{program} bytes'}}\n"},
    "cmd says too much": {"manifest": "  K: {{ref: 'cmd:{program} much'}}\n"},
    "cmd is no program": {"manifest": "  K: {{ref: 'cmd:{held}'}}\n"},
    "file is no text": {"manifest": "  K: {{ref: 'file:{binary}'}}\n"},
    # OpenBao refuses
    "bao token": {"config": OPENBAO, "LOGIN": "{canary}", "manifest": BAO_KEY},
    "bao secret id": {"config": BY_ROLE, "LOGIN": "{canary}", "manifest": BAO_KEY},
    "bao line break": {"config": OPENBAO, "LOGIN": "a\n{canary}", "manifest": "  K: {{ref: 'openbao:secret/x#key'}}\n"},
    "bao nested": {"BAO_TOKEN": "{root}", "BAO_ADDR": "{bao}", "manifest": BAO_KEY},
    "bao wrong key": {"BAO_TOKEN": "{root}", "BAO_ADDR": "{bao}", "manifest": BAO_KEY.replace("#key", "#x")},
}  # fmt: skip
PROGRAM = """\
#!/bin/sh
echo {canary} | tee /dev/stderr
case "$1" in
kill) kill -9 $$ ;;
bytes) printf '{canary}\\377' ;;
much) while :; do echo {canary}; done ;;
*) exit "$1" ;;
esac
"""


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_wrong_with_a_secret_is_told_without_it(tmp_path: Path, bao: OpenBao, how: str) -> None:
    """Promise 28: each of these fails, and says what to do; none of them says the value."""
    given = dict(BROKEN[how])
    scene = Scene(tmp_path)
    canary = scene.canaries.new(how)
    bao.put("ci/nested", key={"key": canary})
    role, _ = bao.app_role("ci")
    program = scene.plant("planted/program", PROGRAM.format(canary=canary), mode=0o700)
    held = scene.plant("planted/held", canary)
    binary = scene.plant("planted/binary", "")
    binary.write_bytes(canary.encode() + b"\xff")
    known = {
        "canary": canary, "bao": bao.address, "role": role, "root": bao.root, "program": program, "held": held,
        "binary": binary,
    }  # fmt: skip
    texts = {name: text.format(**known) for name, text in given.items()}
    scene.plant("config/extensions/ext.echo.yaml", FREE + texts.pop("manifest", "  K: {ref: 'env:K'}\n"))
    more = texts.pop("profile", "")
    scene.plant("config/profiles/profile.echo.yaml", f"id: profile.echo\n{PROFILE}{more}")
    scene.plant("config/config.yaml", texts.pop("config", ""))
    scene.set(**{"K": "a key", "ECHO_API_URL": NOT_THERE, **texts})
    with Watch(scene.canaries, own=[os.getpid()]) as watch:
        for as_json in ((), ("--json",)):
            answer = scene.run("create", "--profile", "profile.echo", *as_json, debug=True)
            assert "Traceback" not in answer.stderr
            assert answer.status not in (0, 1), answer
        for line in ("route explain --profile profile.echo", "doctor --json", "extensions list", "events flush"):
            scene.run(*line.split(), debug=True)
    assert scene.leaks() == []
    assert watch.found == {}
