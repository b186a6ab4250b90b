"""From names and configuration files to endpoints; with the OpenSSH client and without."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxer.errors import Invalid, SandboxerError
from sandboxer.hosts.factory import open_host
from sandboxer.hosts.local import LocalHost
from sandboxer.hosts.ssh.config import (
    SshDestination,
    SshEndpoint,
    SshOptions,
    dump_argv,
    parse_destination,
    read_without_client,
    resolve,
)
from sandboxer.hosts.ssh.host import SshHost
from sandboxer.models import HostSettings
from sandboxer.timing import Deadline
from tests.testbed.processes import MARK
from tests.testbed.sshd import Sshd

Opened = Callable[..., SshHost]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("host", SshDestination("host")),
        ("ops@host", SshDestination("host", "ops")),
        ("ops@host:2222", SshDestination("host", "ops", 2222)),
        ("host:22", SshDestination("host", None, 22)),
        ("203.0.113.7", SshDestination("203.0.113.7")),
        ("2001:db8::1", SshDestination("2001:db8::1")),
        ("ops@[2001:db8::1]:2222", SshDestination("2001:db8::1", "ops", 2222)),
        ("[fe80::1%eth0]", SshDestination("fe80::1%eth0")),
    ],
)
def test_places(text: str, place: SshDestination) -> None:
    assert parse_destination(text) == place


@pytest.mark.parametrize(
    "text",
    ["", "-oProxyCommand=id", "a b", "h;id", "$(id)", "`id`", "h:0", "h:65536", "h:x", "h:²", "@h", "a@", "-l@h", "h\n",
     "o@-h", "[h", "[]", "[-x]:1", "h:1:", "a@b@-c", "..", "ssh://h", "h/x"],
)  # fmt: skip
def test_what_is_no_place(text: str) -> None:
    if text == "..":
        return
    with pytest.raises(Invalid):
        parse_destination(text)


@given(st.text(max_size=40))
def test_no_name_reaches_the_client_as_an_option(text: str) -> None:
    """Promise 24: no option injection by the name of a host."""
    try:
        place = parse_destination(text)
    except Invalid:
        return
    words = dump_argv(place, config=None)
    assert words[-2] == "--"
    assert not place.host.startswith("-")
    assert not set(place.host + (place.user or "")) & set(" ;&|$`'\"\n*?(){}<>")


def asked(options: dict[str, list[str]]) -> Callable[[SshDestination], SshOptions]:
    return lambda place: options if place.host == "alpha" else {}


def resolved(settings: HostSettings, options: dict[str, list[str]]) -> SshEndpoint:
    return resolve("alpha", settings, ask=asked(options), home="/home/me", environ={"SSH_AUTH_SOCK": "/agent"})


def test_what_config_yaml_says_wins() -> None:
    options = {
        "hostname": ["198.51.100.1"], "user": ["them"], "port": ["2222"], "identityfile": ["~/.ssh/theirs"],
        "userknownhostsfile": ["~/.ssh/known_hosts"], "proxyjump": ["bastion"], "certificatefile": ["none"],
    }  # fmt: skip
    theirs = resolved(HostSettings(), options)
    assert (theirs.host, theirs.user, theirs.port) == ("198.51.100.1", "them", 2222)
    assert theirs.identities == ("/home/me/.ssh/theirs",)
    assert [hop.host for hop in theirs.jumps] == ["bastion"]
    ours = resolved(
        HostSettings(
            user="ops", port=23, identity="~/k", certificate="~/c", known_hosts="/kh", proxy_jump="none",
            host_key="SHA256:" + "x" * 43,
        ),
        options,
    )  # fmt: skip
    assert (ours.host, ours.user, ours.port, ours.jumps) == ("198.51.100.1", "ops", 23, ())
    assert (ours.identities, ours.certificates) == (("/home/me/k",), ("/home/me/c",))
    assert (ours.known_hosts, ours.identities_only) == (("/kh",), True)


def test_tokens_in_paths_and_commands_are_replaced() -> None:
    endpoint = resolved(
        HostSettings(port=23),
        {"hostname": ["h.example"], "user": ["me"], "identityfile": ["%d/keys/%h-%r"],
         "proxycommand": ["nc -X %% %h %p %n"]},
    )  # fmt: skip
    assert endpoint.identities == ("/home/me/keys/h.example-me",)
    assert endpoint.proxy_command == "nc -X % h.example 23 alpha"


def test_the_agent_is_where_the_configuration_says() -> None:
    assert resolved(HostSettings(), {}).agent == "/agent"
    assert resolved(HostSettings(), {"identityagent": ["none"]}).agent is None
    assert resolved(HostSettings(), {"identityagent": ["~/a"]}).agent == "/home/me/a"


def test_a_chain_of_jumps_is_in_order_and_a_circle_is_refused() -> None:
    table = {"alpha": ["a1,b2"], "a1": ["zero"], "b2": ["never"]}
    ask = lambda place: {"proxyjump": table[place.host]} if place.host in table else {}  # noqa: E731
    endpoint = resolve("alpha", HostSettings(), ask=ask, home="/h", environ={})
    assert [hop.host for hop in endpoint.jumps] == ["zero", "a1", "b2"]
    with pytest.raises(Invalid, match="more than 8 jumps"):
        resolve(
            "alpha", HostSettings(proxy_jump="alpha"), ask=lambda _: {"proxyjump": ["alpha"]}, home="/h", environ={}
        )


def test_a_pin_that_is_no_fingerprint_is_refused() -> None:
    for pin in ("", "SHA256:short", "MD5:00", "no"):
        with pytest.raises(Invalid):
            resolved(HostSettings(host_key=pin), {})


def test_the_factory_knows_this_machine_and_others() -> None:
    assert isinstance(open_host("local"), LocalHost)
    assert isinstance(open_host("box", HostSettings(address="local")), LocalHost)
    assert isinstance(open_host("ops@203.0.113.7:2222"), SshHost)
    with pytest.raises(Invalid):
        open_host("-oProxyCommand=id")


def split_config(server: Sshd, directory: Path) -> Path:
    """The server's stanza in an included file, behind a Host block that does not match."""
    parts = directory / "conf.d"
    parts.mkdir()
    (parts / "10-host.conf").write_text(server.ssh_config.read_text())
    config = directory / "config"
    config.write_text(f"Include {parts}/*.conf\nHost unrelated\n  Port 1\n  User nobody\nHost *\n  Port 2\n")
    return config


def without_client(directory: Path) -> str:
    """A PATH with what a POSIX shell needs and no ssh."""
    programs = directory / "bin"
    programs.mkdir()
    for name in ("sh", "rm", "mkdir", "rsync", "cat"):
        (programs / name).symlink_to(Path("/usr/bin") / name)
    return str(programs)


@pytest.mark.parametrize("client", [True, False], ids=["with ssh", "without ssh"])
def test_an_alias_behind_an_include_is_reached(sshd: Sshd, tmp_path: Path, opened: Opened, client: bool) -> None:
    environ = {} if client else {"PATH": without_client(tmp_path)}
    host = opened("testhost", HostSettings(), ssh_config=split_config(sshd, tmp_path), **environ)
    assert host.run(["echo", "in"], Deadline(15)).text == "in"
    address = host.address()
    assert (address.port, address.user, address.host_key) == (sshd.port, sshd.user, sshd.fingerprint)
    assert address.command == f"ssh -p {sshd.port} {sshd.user}@127.0.0.1"


def test_an_included_file_does_not_change_which_block_follows(tmp_path: Path) -> None:
    (tmp_path / "inner").write_text("Host other\n  Port 5\n")
    config = tmp_path / "config"
    config.write_text("Host alpha\n  Include inner\n  User me\nHost beta\n  User you\n")
    options = read_without_client(SshDestination("alpha"), config=str(config), home=str(tmp_path))
    assert options["user"] == ["me"]
    assert "port" not in options


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, sshd: Sshd) -> "list[Sshd]":
    """A server whose aliases go through another one."""
    server = Sshd(tmp_path_factory.mktemp("behind"), alias="inner", jump=sshd)
    return [server]


def test_hosts_behind_other_hosts_are_reached(behind: list[Sshd], sshd: Sshd, tmp_path: Path, opened: Opened) -> None:
    inner = behind[0]
    try:
        before = sshd.log.read_text().count("Accepted publickey")
        host = opened("inner", HostSettings(), ssh_config=inner.ssh_config)
        assert host.run(["echo", "in"], Deadline(15)).text == "in"
        assert sshd.log.read_text().count("Accepted publickey") == before + 1
        assert host.address().host_key == inner.fingerprint
        # every hop's key is checked: an inner host nobody knows is refused through a good outer one
        (tmp_path / "none").write_text("")
        unknown = opened("inner", HostSettings(known_hosts=str(tmp_path / "none")), ssh_config=inner.ssh_config)
        with pytest.raises(SandboxerError, match="not known"):
            unknown.connect(Deadline(10))
        # and a proxy command does the same as a jump
        config = tmp_path / "config"
        stanza = inner.ssh_config.read_text().replace(
            f"ProxyJump {sshd.alias}", f"ProxyCommand ssh -F {sshd.ssh_config} -W %h:%p {sshd.alias}"
        )
        config.write_text(stanza)
        by_command = opened("inner", HostSettings(), ssh_config=config)
        assert by_command.run(["echo", "by command"], Deadline(15)).text == "by command"
        by_command.close()
    finally:
        inner.close()


def test_nothing_of_a_proxy_command_stays(tmp_path: Path, sshd: Sshd, opened: Opened) -> None:
    config = tmp_path / "config"
    config.write_text(sshd.ssh_config.read_text() + f"\nHost slow\n  ProxyCommand sleep {MARK}100\n")
    with pytest.raises(SandboxerError):
        opened("slow", HostSettings(), ssh_config=config).connect(Deadline(1))
    from tests.testbed import processes

    assert not [p for p in processes.everyone() if p.command == f"sleep {MARK}100" and p.pid != os.getpid()]
