"""Which addresses count as reached, on real sockets and a real network between two namespaces."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from sandboxer.selfcheck import network

SOURCES = Path(__file__).parents[2] / "src"
# Two namespaces and a wire between them: the far one is 10.9.0.1, as a host would be for a sandbox that has a bridge.
NEIGHBOURS = """
set -e
unshare --net sleep 30 & far=$!
trap 'kill $far' EXIT
i=0
while [ "$(readlink /proc/$far/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do
  i=$((i + 1)); [ $i -lt 500 ]; sleep 0.01
done
ip link add near type veth peer name far netns $far
ip address add 10.9.0.2/24 dev near; ip link set near up; ip link set lo up
nsenter --net=/proc/$far/ns/net sh -c 'ip address add 10.9.0.1/24 dev far; ip link set far up'
"$@"
"""
ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from sandboxer.selfcheck import network
targets = [["10.9.0.1", 9], ["10.9.0.2", 9], ["10.9.0.77", 9], ["192.0.2.1", 9], ["127.0.0.1", 9]]
print(json.dumps([network.connect_all(targets, "n"), sorted(network.interfaces()), network.default_route()]))
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"), reason="needs root, ip and unshare"
)
def test_a_neighbours_refusal_is_an_answer_and_our_own_is_none() -> None:
    words = ["unshare", "--net", "sh", "-c", NEIGHBOURS, "sh", "/usr/bin/python3", "-I", "-B", "-c", ASK, str(SOURCES)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    if "not supported" in done.stderr or "Unknown device type" in done.stderr:
        pytest.skip("this kernel has no veth")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[["10.9.0.1", 9, "refused"]], ["lo", "near"], False]


def test_a_connection_counts_and_leaves_the_nonce() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert network.connect_all([["127.0.0.1", port]], "the nonce") == [["127.0.0.1", port, "connected"]]
        caller, _ = server.accept()
        with caller:
            assert caller.recv(100) == b"the nonce"


def test_a_socket_that_nobody_serves_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    assert not network.connects(str(path))
    assert not network.connects(str(tmp_path / "missing"))
