"""The words, read as a specification."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sandboxer.errors import BackendError, NotConfigured
from sandboxer.extensions.native import scripts, start_file
from sandboxer.extensions.native.errors import OldBubblewrap, why_not_started
from sandboxer.extensions.native.handle import FIRST_UID, LAST_UID, SandboxPaths, suffix
from sandboxer.extensions.native.host_facts import HostFacts, parse
from sandboxer.extensions.native.options import NativeOptions
from sandboxer.extensions.native.plan import StartPlan, bwrap_words, plan
from sandboxer.extensions.native.start_file import script
from sandboxer.names import new_id

PLACE = SandboxPaths("/srv/work", "abcdefghijkl", "install")
TOOLS = {name: f"/usr/bin/{name}" for name in ("unshare", "mount", "setpriv", "bwrap")}
ROOT = HostFacts(
    uid=0, kernel="6.1.0", machine="x86_64", masks=("/proc/keys",), tools=TOOLS,
    links=("bin", "lib"), folders=("lib64",), cgroup_namespace=True,
    pythons=("/usr/bin/python3.11",),
)  # fmt: skip


def _facts(**changes: Any) -> HostFacts:
    return msgspec.structs.replace(ROOT, **changes)


def _plan(facts: HostFacts = ROOT, **options: Any) -> StartPlan:
    return plan(PLACE, msgspec.convert(options, NativeOptions), facts, python_home=None, synced=False)


def _words(facts: HostFacts = ROOT, binds: dict[str, str] | None = None, **options: Any) -> list[str]:
    decoded = msgspec.convert(options, NativeOptions)
    made = plan(PLACE, decoded, facts, python_home=None, synced=False)
    return bwrap_words(PLACE, decoded, facts, sandbox=made.sandbox, binds=binds or dict(decoded.ro_binds))


def test_the_holder_of_a_plain_sandbox_that_root_runs() -> None:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert shlex.join(_words()).split(" --") == [
        "/usr/bin/bwrap",
        "unshare-user",
        "unshare-pid",
        "unshare-ipc",
        "unshare-uts",
        "unshare-net",
        "unshare-cgroup",
        "disable-userns",
        "uid 1000",
        "gid 1000",
        "hostname sbx-abcdefghijkl",
        "new-session",
        "cap-drop ALL",
        "clearenv",
        f"setenv PATH {path}",
        "setenv HOME /workspace",
        "setenv USER sandbox",
        "setenv LOGNAME sandbox",
        "setenv LANG C.UTF-8",
        "dir /etc",
        "dir /run",
        "dir /var",
        "dir /opt",
        "ro-bind /usr /usr",
        "symlink usr/bin /bin",
        "symlink usr/lib /lib",
        "ro-bind /lib64 /lib64",
        "ro-bind-try /etc/ld.so.cache /etc/ld.so.cache",
        "ro-bind-try /etc/alternatives /etc/alternatives",
        "ro-bind-try /etc/localtime /etc/localtime",
        "ro-bind-try /etc/services /etc/services",
        "ro-bind-try /etc/protocols /etc/protocols",
        "ro-bind-try /etc/ssl/certs /etc/ssl/certs",
        "ro-bind-try /etc/ssl/openssl.cnf /etc/ssl/openssl.cnf",
        "ro-bind-try /etc/ca-certificates /etc/ca-certificates",
        "ro-bind-try /etc/pki/ca-trust /etc/pki/ca-trust",
        "ro-bind-try /etc/pki/tls/certs /etc/pki/tls/certs",
        "perms 0644",
        "file 4 /etc/passwd",
        "perms 0644",
        "file 5 /etc/group",
        "perms 0644",
        "file 6 /etc/hosts",
        "perms 0644",
        "file 7 /etc/hostname",
        "perms 0644",
        "file 8 /etc/nsswitch.conf",
        "proc /proc",
        "dev /dev",
        "ro-bind /dev/null /proc/keys",
        "perms 1777",
        "size 67108864",
        "tmpfs /dev/shm",
        "remount-ro /dev",
        "ro-bind /mnt/run/inside /run/sandboxer",
        "symlink ../tmp /var/tmp",
        "bind /mnt/tmp /tmp",
        "chmod 1777 /tmp",
        "bind /mnt/workspace /workspace",
        "remount-ro /",
        "chdir /workspace",
        "json-status-fd 3",
        "as-pid-1",
        "die-with-parent",
        " /proc/self/fd/9 init",
        "core=0:0",
        "nproc=4096:4096",
        " /bin/sh /run/sandboxer/supervise",
    ]


def test_an_ordinary_users_sandbox_is_mounted_from_where_it_is() -> None:
    words = _words(_facts(uid=1001), ro_binds={"/opt/data": "/home/joe/data"})
    line = shlex.join(words)
    assert "--bind /srv/work/sbx-abcdefghijkl/workspace /workspace" in line
    assert "--ro-bind /home/joe/data /opt/data" in line
    assert "/mnt" not in line


def test_what_root_shows_read_only_goes_through_the_namespace_of_ours() -> None:
    made = _plan(ro_binds={"/opt/data": "/root/data"})
    assert "--ro-bind /mnt/run/binds/0 /opt/data" in made.start
    assert "set -- /root/data /usr/bin/bwrap" in made.start
    assert "binds=1" in made.start


def test_services_get_a_log_each_and_are_named_to_the_supervisor() -> None:
    services = {"web": {"command": ["serve"]}, "db": {"command": ["db"], "restart": "always"}}
    line = shlex.join(_words(services=services))
    assert "--bind /mnt/logs/web.log /var/log/services/web.log" in line
    assert line.endswith("-- /bin/sh /run/sandboxer/supervise web on-failure db always")


def test_the_hosts_network_brings_its_name_servers() -> None:
    line = shlex.join(_words(network="host"))
    assert "--unshare-net" not in line
    assert "--ro-bind-try /etc/resolv.conf /etc/resolv.conf" in line


def test_without_a_bubblewrap_of_its_own_the_host_gets_ours() -> None:
    without = ROOT.without_bwrap()
    assert _words(without)[0] == "/mnt/run/bwrap/package/bin/bwrap"
    assert _words(without, binds={})[1:] == _words()[1:]


def test_a_python_of_the_system_is_used_or_else_the_given_tree() -> None:
    options = msgspec.convert({"python": True}, NativeOptions)
    assert "--symlink /usr/bin/python3.11 /opt/python/bin/python3" in shlex.join(_words(python=True))
    given = plan(PLACE, options, _facts(pythons=()), python_home="/root/py", synced=False)
    assert "--ro-bind /mnt/run/binds/0 /opt/python" in given.start
    assert given.sandbox.path.startswith("/opt/python/bin:")


def test_limits_become_words_control_groups_and_notes() -> None:
    limits = {"memory": "512m", "cpu": 1.5, "processes": 100, "open_files": 5000, "file_size": "1g"}
    facts = _facts(cgroup_version=2, cgroups=frozenset({"memory", "cpu"}), hard={"open_files": 1024})
    made = _plan(facts, limits=limits)
    assert made.sandbox.limits == [
        "--core=0:0",
        "--nproc=100:100",
        "--nofile=1024:1024",
        "--fsize=1073741824:1073741824",
    ]
    assert made.sandbox.cgroups == ["/sys/fs/cgroup/sbx-abcdefghijkl"]
    assert "echo 536870912 >/sys/fs/cgroup/sbx-abcdefghijkl/memory.max" in made.start
    assert "echo '150000 100000' >/sys/fs/cgroup/sbx-abcdefghijkl/cpu.max" in made.start
    assert made.sandbox.notes[-1] == "not limited: disk"
    old = _plan(_facts(cgroup_version=1, cgroups=frozenset({"memory"})), limits=limits)
    assert old.sandbox.cgroups == ["/sys/fs/cgroup/memory/sbx-abcdefghijkl"]
    assert any("cpu limit 1.5 is not enforced" in note for note in old.sandbox.notes)
    none = _plan(limits=limits)
    assert none.sandbox.cgroups == []
    assert any("memory limit 512m is not enforced" in note for note in none.sandbox.notes)


def test_an_ordinary_user_and_an_old_kernel_are_said() -> None:
    notes = "; ".join(_plan(_facts(uid=1001, kernel="5.10.0")).sandbox.notes)
    assert "rights of the host user 1001" in notes
    assert "before 5.14" in notes


NASTY = "a'b\"c $HOME `id` $(id) \\ \n * EOF\n-n 'é"


def test_nothing_of_a_profile_is_read_as_shell_in_the_start_file(tmp_path: Path) -> None:
    paths = SandboxPaths(str(tmp_path / "wo'rk $(touch x)"), "abcdefghijkl", "install")
    services = {"a": {"command": ["run", NASTY], "env": {"V": NASTY}, "cwd": f"/{NASTY}"}}
    options = msgspec.convert({"services": services, "ro_binds": {f"/o/{NASTY.strip()}": "/x y"}}, NativeOptions)
    made = plan(paths, options, ROOT, python_home=None, synced=True)
    # what stands before the constant text, then the words and a file, as the shell has understood them
    generated = made.start[: made.start.index("# Looks at /proc")]
    for name in ("run/inside/services", "logs"):
        Path(paths.directory, name).mkdir(parents=True)
    tell = generated + '\nfiles || exit 9\nprintf "%s\\0" "$dir" "$@"\n'
    done = subprocess.run(["sh", "-c", tell], capture_output=True, cwd=tmp_path, check=True)
    told = done.stdout.decode().split("\0")[:-1]
    assert told[0] == paths.directory
    assert told[1:3] == ["/x y", "/usr/bin/bwrap"]
    assert f"/o/{NASTY.strip()}" in told
    assert [path.name for path in tmp_path.iterdir()] == [Path(paths.work_dir).name]
    service = Path(paths.directory, "run/inside/services/a")
    words = shlex.split(service.read_text())
    assert words[:2] == ["cd", f"/{NASTY}"]
    assert words[-3:] == ["exec", "run", NASTY]
    assert f"V={NASTY}" in words


@pytest.mark.parametrize("name", ["common", "claim", "start", "enter", "look", "list", "end", "supervise", "settle"])
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_every_script_is_understood_by_every_shell(name: str, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    words = [shell, "sh", "-n"] if shell == "busybox" else [shell, "-n"]
    done = subprocess.run(words, input=script(name), text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_values_are_arguments_of_the_scripts_and_never_a_part_of_them() -> None:
    paths = SandboxPaths("/a $(id) 'b", "abcdefghijkl", "in$(id)stall")
    sandbox = plan(paths, NativeOptions(), ROOT, python_home=None, synced=False).sandbox
    for words in (
        scripts.claim(paths, "marker $(id)"), scripts.start(paths, owners=True), scripts.look(paths),
        scripts.end(paths), scripts.inventory(paths.work_dir, paths.install), scripts.enter(sandbox, token="t"),
    ):  # fmt: skip
        assert words[:2] == ["/bin/sh", "-c"]
        assert "$(id)" not in words[2]


def test_each_sandbox_has_a_user_of_its_own_in_a_range_that_is_nobodys() -> None:
    users = {SandboxPaths("/w", new_id(), "i").owner for _ in range(500)}
    assert len(users) == 500
    assert all(FIRST_UID <= user <= LAST_UID for user in users)


def test_tags_tell_installations_and_work_directories_apart() -> None:
    assert len({suffix("/a", "x"), suffix("/a", "y"), suffix("/b", "x")}) == 3


def test_facts_are_read_from_what_the_host_says() -> None:
    facts = parse(
        "noise\nuid 1001\nkernel 6.1.0-13-amd64\ntool bwrap /usr/bin/bwrap\nlink bin\nfolder lib64\ncover /mnt\n"
        "hard_open_files 1024\nhard_processes unlimited\ncgroup2 memory\ncgroup2 pids\n"
    )
    assert (facts.uid, facts.root, facts.kernel_version) == (1001, False, (6, 1))
    assert facts.tools == {"bwrap": "/usr/bin/bwrap"}
    assert facts.hard == {"open_files": 1024}
    assert (facts.cgroup_version, facts.cgroups) == (2, frozenset({"memory", "pids"}))
    with pytest.raises(BackendError):
        parse("nothing")


@pytest.mark.parametrize(
    ("said", "sysctls", "hint"),
    [
        (
            "bwrap: No permissions to create new namespace",
            {"kernel/unprivileged_userns_clone": "0"},
            "unprivileged_userns_clone=1",
        ),
        ("unshare: unshare failed: No space left on device", {"user/max_user_namespaces": "0"}, "max_user_namespaces"),
        (
            "bwrap: setting up uid map: Permission denied",
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            "AppArmor",
        ),
        ("unshare: unshare failed: Operation not permitted", {}, "privileged"),
        ("setpriv: setresuid failed: Invalid argument", {}, "as an ordinary user"),
        ("chown: changing ownership of '/a b/sbx-x/workspace': Invalid argument", {}, "as an ordinary user"),
    ],
)
def test_why_no_namespace_can_be_made_is_said_with_what_to_type(said: str, sysctls: dict[str, str], hint: str) -> None:
    error = why_not_started(said, _facts(sysctls=sysctls))
    assert isinstance(error, NotConfigured)
    assert hint in error.hint


def test_other_reasons_are_told_as_they_are() -> None:
    assert isinstance(why_not_started("bwrap: Unknown option --disable-userns", ROOT), OldBubblewrap)
    error = why_not_started("bwrap: Can't find source path /x: No such file or directory", ROOT)
    assert isinstance(error, BackendError)
    assert "/x" in error.message


def test_the_folders_of_a_first_start_belong_to_those_who_write_them() -> None:
    made = start_file.folders(owner=7, root=True, synced=False)
    assert made["workspace"] == made["tmp"] == (0o755, 7, 7)
    assert made["run"] == (0o755, 0, 0)
    # the sandbox's group may pass the directory, and its uid does not own it
    assert made["."] == (0o710, 0, 7)
    assert "workspace" not in start_file.folders(owner=7, root=True, synced=True)
    assert "." not in start_file.folders(owner=7, root=False, synced=False)
