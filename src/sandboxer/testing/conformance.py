"""The conformance suite: what every extension must do, run by its author in about ten lines.

    class TestMine(ConformanceSuite):
        @pytest.fixture(scope="class")
        @classmethod
        def bench(cls, tmp_path_factory):
            yield Bench(extension=MyExtension, host=LocalHost("local", HostSettings(work_dir=...)), ...)

A deviation is named in `deviations` with its reason, by the name of the test; it is strict: one that heals fails.
The suite needs pytest; it is not imported by the program.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
import pytest

from sandboxer.errors import Conflict, SandboxerError, Timeout
from sandboxer.extensions.base import (
    CanCopy,
    CanExec,
    CanLogs,
    CanRenew,
    Context,
    Exec,
    Found,
    SandboxExtension,
    Spec,
)
from sandboxer.hosts.base import Host, Streams
from sandboxer.models import Handle, Ready
from sandboxer.names import (
    LABEL_EXPIRES,
    LABEL_EXTENSION,
    LABEL_ID,
    LABEL_INSTALL,
    LABEL_PROFILE,
    new_id,
    resource_name,
)
from sandboxer.timing import Deadline

TORTURE = (
    "", " ", "a b", "'", '"', "\\", "$HOME", "`id`", "$(id)", "a\nb", "\n", "*", "~", "-n", "--", ";", "&&", "|", ">x",
    "#", "!", "%s", "é", "日本", "\t", "{a,b}", "a=b", "\\n", "'\"'", "$'x'", "\x7f", "x" * 5000,
)  # fmt: skip
"""Arguments that a careless launch would change."""

INSTALL = "conformanceinst"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a suite works with.

    `extension` makes a fresh instance; `hosts` a fresh connection to the host. `inputs` and `options` make a valid
    sandbox with a POSIX shell inside; `broken` are inputs or options (as "inputs"/"options") with which provision or
    wait_ready fails. `census` names everything of ours on the backend. `seconds` bounds each step."""

    extension: Callable[[], SandboxExtension]
    extension_id: str
    hosts: Callable[[], Host]
    census: Callable[[], Sequence[str]]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    broken: Mapping[str, Mapping[str, Any]] | None = None
    seconds: float = 60.0
    progress: Callable[[str, str], None] = field(default=lambda _phase, _text: None)

    def spec(self, sandbox_id: str, *, broken: bool = False, install: str = INSTALL) -> Spec:
        """A resolved spec for a new sandbox."""
        wrong = dict(self.broken or {}) if broken else {}
        options = {**self.options, **wrong.get("options", {})}
        expires = time.time() + 3600
        return Spec(
            sandbox_id=sandbox_id,
            resource=resource_name(sandbox_id),
            profile="profile.conformance",
            labels={
                LABEL_ID: sandbox_id,
                LABEL_INSTALL: install,
                LABEL_EXPIRES: str(int(expires)),
                LABEL_PROFILE: "profile.conformance",
                LABEL_EXTENSION: self.extension_id,
            },
            inputs={**self.inputs, **wrong.get("inputs", {})},
            options=msgspec.convert(options, self.extension().Options),
            expires_at=expires,
        )

    def context(
        self,
        host: Host,
        *,
        save: Callable[[Handle], None] = lambda _handle: None,
        seconds: float | None = None,
        install: str = INSTALL,
    ) -> Context:
        """A context with a deadline."""
        deadline = Deadline(self.seconds if seconds is None else seconds)
        return Context(host=host, install=install, deadline=deadline, progress=self.progress, save=save)


@dataclass(frozen=True, kw_only=True)
class Made:
    """One ready sandbox of a suite."""

    bench: Bench
    host: Host
    sandbox_id: str
    handle: Handle
    ready: Ready

    def run(
        self, *argv: str, stdin: bytes = b"", seconds: float | None = None, **more: Any
    ) -> tuple[int, bytes, bytes]:
        """Run a command inside: exit code, stdout, stderr."""
        extension = self.bench.extension()
        assert isinstance(extension, CanExec)
        out, err = bytearray(), bytearray()
        streams = Streams(stdin=io.BytesIO(stdin), stdout=out.extend, stderr=err.extend)
        context = self.bench.context(self.host, seconds=seconds)
        code = extension.exec(self.handle, Exec(argv=argv, **more), streams, context)
        return code, bytes(out), bytes(err)


def make(bench: Bench, host: Host, sandbox_id: str | None = None) -> Made:
    """Provision a sandbox and wait until it is ready."""
    name = sandbox_id or new_id()
    extension = bench.extension()
    handle = extension.provision(bench.spec(name), bench.context(host))
    ready = extension.wait_ready(handle, bench.context(host))
    return Made(bench=bench, host=host, sandbox_id=name, handle=handle, ready=ready)


def remove(bench: Bench, host: Host, sandbox_id: str) -> None:
    """Find and tear down, as `reconcile` does."""
    extension = bench.extension()
    handle = extension.find(sandbox_id, bench.context(host))
    if handle is not None:
        extension.teardown(handle, bench.context(host))


class ConformanceSuite:
    """Subclass it as `Test...` and give a class-scoped fixture `bench`."""

    deviations: ClassVar[Mapping[str, str]] = {}
    """Test name -> reason: what this extension does otherwise, on purpose."""

    @pytest.fixture(autouse=True)
    def _deviation(self, request: pytest.FixtureRequest) -> None:
        reason = self.deviations.get(request.node.originalname)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    @pytest.fixture(scope="class")
    @classmethod
    def host(cls, bench: Bench) -> Iterator[Host]:
        host = bench.hosts()
        yield host
        host.close()

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, bench: Bench, host: Host) -> Iterator[Made]:
        sandbox = make(bench, host)
        yield sandbox
        remove(bench, host, sandbox.sandbox_id)

    # -- life cycle -----------------------------------------------------------------------------------------------

    def test_check_passes_where_the_suite_runs(self, bench: Bench, host: Host) -> None:
        bench.extension().check(bench.context(host))

    def test_from_nothing_to_ready_to_nothing(self, bench: Bench, host: Host) -> None:
        before = set(bench.census())
        sandbox_id, extension = new_id(), bench.extension()
        assert extension.find(sandbox_id, bench.context(host)) is None
        saved: list[Handle] = []
        handle = extension.provision(bench.spec(sandbox_id), bench.context(host, save=saved.append))
        assert saved, "the handle is saved as soon as there is something to remember"
        extension.wait_ready(handle, bench.context(host))
        assert extension.status(handle, bench.context(host)).presence == "running"
        extension.teardown(handle, bench.context(host))
        assert extension.status(handle, bench.context(host)).presence == "absent"
        assert extension.find(sandbox_id, bench.context(host)) is None
        assert set(bench.census()) <= before

    def test_a_handle_survives_json_and_a_new_process(self, made: Made) -> None:
        handle = msgspec.json.decode(msgspec.json.encode(made.handle), type=Handle)
        assert handle == made.handle
        host = made.bench.hosts()
        try:
            status = made.bench.extension().status(handle, made.bench.context(host))
        finally:
            host.close()
        assert status.presence == "running"

    def test_it_is_found_by_id(self, made: Made) -> None:
        context = made.bench.context(made.host)
        found = made.bench.extension().find(made.sandbox_id, context)
        assert found is not None
        assert made.bench.extension().status(found, context).presence == "running"

    def test_the_inventory_shows_it_with_its_labels(self, made: Made) -> None:
        (found,) = self._listed(made, INSTALL)
        assert found.created_at is not None
        assert abs(found.created_at - time.time()) < 3600
        assert found.expires_at is not None
        assert found.labels[LABEL_PROFILE] == "profile.conformance"

    def test_the_inventory_of_another_installation_does_not_show_it(self, made: Made) -> None:
        assert self._listed(made, "someoneelse") == []

    def _listed(self, made: Made, install: str) -> list[Found]:
        context = made.bench.context(made.host, install=install)
        return [f for f in made.bench.extension().inventory(context) if f.sandbox_id == made.sandbox_id]

    def test_a_renewal_shows_in_the_inventory(self, made: Made) -> None:
        extension = made.bench.extension()
        if not isinstance(extension, CanRenew):
            pytest.skip("has no renew")
        until = float(int(time.time()) + 9000)
        extension.renew(made.handle, until, made.bench.context(made.host))
        (found,) = self._listed(made, INSTALL)
        assert found.expires_at == until

    def test_tearing_down_twice_is_success(self, bench: Bench, host: Host) -> None:
        sandbox = make(bench, host)
        extension = bench.extension()
        extension.teardown(sandbox.handle, bench.context(host))
        extension.teardown(sandbox.handle, bench.context(host))
        assert extension.status(sandbox.handle, bench.context(host)).presence == "absent"

    def test_a_creator_that_dies_when_it_saves_leaves_what_find_and_teardown_remove(
        self, bench: Bench, host: Host
    ) -> None:
        before = set(bench.census())
        sandbox_id = new_id()

        def die(_handle: Handle) -> None:
            raise Conflict("the sandbox is not wanted any more")

        with pytest.raises(Conflict):
            bench.extension().provision(bench.spec(sandbox_id), bench.context(host, save=die))
        remove(bench, host, sandbox_id)
        assert set(bench.census()) <= before

    def test_a_failed_establishment_leaves_nothing_after_teardown(self, bench: Bench, host: Host) -> None:
        if bench.broken is None:
            pytest.skip("nothing can be broken by inputs or options")
        before = set(bench.census())
        sandbox_id, extension = new_id(), bench.extension()
        with pytest.raises(SandboxerError) as caught:
            extension.wait_ready(
                extension.provision(bench.spec(sandbox_id, broken=True), bench.context(host)), bench.context(host)
            )
        assert caught.value.hint, "an error says what to do next"
        remove(bench, host, sandbox_id)
        assert set(bench.census()) <= before

    def test_a_deadline_that_passes_is_a_timeout_and_can_be_cleaned_up(self, bench: Bench, host: Host) -> None:
        before = set(bench.census())
        sandbox_id, extension = new_id(), bench.extension()
        with pytest.raises(Timeout):
            extension.provision(bench.spec(sandbox_id), bench.context(host, seconds=0.0))
        remove(bench, host, sandbox_id)
        assert set(bench.census()) <= before

    def test_two_sandboxes_do_not_see_each_other(self, made: Made, host: Host) -> None:
        other = make(made.bench, host)
        try:
            assert made.run("sh", "-c", "echo secret > /tmp/of-the-first; sleep 60 & exit 0")[0] == 0
            code, out, _ = other.run("sh", "-c", "cat /tmp/of-the-first; ls /tmp")
            assert b"secret" not in out
            assert b"of-the-first" not in out
            assert code == 0
        finally:
            remove(made.bench, host, other.sandbox_id)

    def test_ready_tells_how_it_is_reached_and_isolated(self, made: Made) -> None:
        assert made.ready.reachability.kind in ("local", "ssh", "api")
        assert made.ready.reachability.remote_dir or made.ready.reachability.provider_id
        assert made.ready.isolation.class_

    # -- exec -----------------------------------------------------------------------------------------------------

    def test_arguments_arrive_byte_for_byte(self, made: Made) -> None:
        script = 'for a; do printf "%s\\0" "$a"; done'
        code, out, err = made.run("sh", "-c", script, "sh", *TORTURE)
        assert (code, err) == (0, b"")
        assert out == b"".join(word.encode() + b"\0" for word in TORTURE)

    def test_environment_values_arrive_and_ours_stay_out(self, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SANDBOXER_CONFORMANCE_CANARY", "leaked")
        values = {f"V{n}": word for n, word in enumerate(TORTURE)}
        names = " ".join(f'"$V{n}"' for n in range(len(TORTURE)))
        code, out, _ = made.run("sh", "-c", f'for a in {names}; do printf "%s\\0" "$a"; done', env=values)
        assert code == 0
        assert out == b"".join(word.encode() + b"\0" for word in TORTURE)
        code, out, _ = made.run("sh", "-c", "set; env 2>/dev/null || true")
        assert b"leaked" not in out

    def test_stdin_is_binary_and_ends(self, made: Made) -> None:
        data = bytes(range(256)) * 400
        code, out, _ = made.run("cat", stdin=data)
        assert (code, out == data) == (0, True)

    def test_stdout_and_stderr_stay_apart(self, made: Made) -> None:
        assert made.run("sh", "-c", "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")

    @pytest.mark.parametrize("code", [0, 1, 2, 7, 42, 124, 125, 126, 127, 255])
    def test_exit_codes_are_the_commands_own(self, made: Made, code: int) -> None:
        assert made.run("sh", "-c", f"exit {code}")[0] == code

    def test_a_command_that_is_not_there_is_127_and_one_that_cannot_run_126(self, made: Made) -> None:
        assert made.run("no-such-command-here")[0] == 127
        made.run("sh", "-c", "echo text > /tmp/plain; chmod 644 /tmp/plain")
        assert made.run("/tmp/plain")[0] == 126

    def test_a_command_killed_by_a_signal_is_128_plus_its_number(self, made: Made) -> None:
        assert made.run("sh", "-c", "kill -9 $$")[0] == 137

    def test_a_working_directory_is_kept(self, made: Made) -> None:
        assert made.run("pwd", cwd="/tmp")[1] == b"/tmp\n"

    def test_what_one_command_leaves_another_finds(self, made: Made) -> None:
        made.run("sh", "-c", "echo here > /tmp/left")
        assert made.run("cat", "/tmp/left")[1] == b"here\n"

    def test_a_timeout_kills_the_command_and_its_children(self, made: Made) -> None:
        word = f"sleeps{new_id()}"
        script = f": {word}; sleep 300 & sleep 300 & wait"
        started = time.monotonic()
        with pytest.raises(Timeout):
            made.run("sh", "-c", script, seconds=1.0)
        assert time.monotonic() - started < 10
        look = 'for d in /proc/[0-9]*; do tr "\\0" " " < $d/cmdline; echo; done 2>/dev/null'
        deadline = time.monotonic() + 5
        while b"sleep 300" in (out := made.run("sh", "-c", look)[1]) and time.monotonic() < deadline:
            continue
        assert b"sleep 300" not in out
        assert word.encode() not in out

    # -- files and logs -------------------------------------------------------------------------------------------

    def test_a_tree_goes_in_and_comes_out_unchanged(self, made: Made) -> None:
        extension, context = made.bench.extension(), made.bench.context(made.host)
        if not isinstance(extension, CanCopy):
            pytest.skip("has no cp")
        data = bytes(range(256)) * 100
        extension.put_archive(made.handle, "/tmp/a/b", _tar({"tree/x": data, "tree/sub dir/ü": b"u"}), context)
        assert extension.path_kind(made.handle, "/tmp/a/b/tree", context) == "directory"
        assert extension.path_kind(made.handle, "/tmp/a/b/tree/x", context) == "file"
        assert extension.path_kind(made.handle, "/tmp/a/nope", context) == "absent"
        out = io.BytesIO()
        extension.get_archive(made.handle, "/tmp/a/b/tree", lambda chunk: _write(out, chunk), context)
        out.seek(0)
        with tarfile.open(fileobj=out) as tar:
            names = {member.name.rstrip("/"): member for member in tar}
            assert set(names) == {"tree", "tree/x", "tree/sub dir", "tree/sub dir/ü"}
            content = tar.extractfile(names["tree/x"])
            assert content is not None
            assert content.read() == data

    def test_what_is_not_there_cannot_be_taken_out(self, made: Made) -> None:
        extension = made.bench.extension()
        if not isinstance(extension, CanCopy):
            pytest.skip("has no cp")
        with pytest.raises(SandboxerError) as caught:
            extension.get_archive(made.handle, "/tmp/nope", lambda _chunk: None, made.bench.context(made.host))
        assert caught.value.code == "not_found"

    def test_logs_can_be_read(self, made: Made) -> None:
        extension = made.bench.extension()
        if not isinstance(extension, CanLogs):
            pytest.skip("has no logs")
        out = bytearray()
        streams = Streams(stdout=out.extend, stderr=out.extend)
        extension.logs(made.handle, streams, made.bench.context(made.host), service=None, follow=False, tail=10)


def _write(file: io.BytesIO, chunk: bytes) -> None:
    file.write(chunk)


def _tar(files: Mapping[str, bytes]) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    packed.seek(0)
    return packed
