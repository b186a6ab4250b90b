"""The filter, evaluated: nothing gets through it that Docker's default profile closes. arm64 is proved here alone."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Iterator, Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxer.errors import Unsupported
from sandboxer.extensions.native.seccomp import MACHINES, program, table
from tests.extensions.native.seccomp import docker, evaluator, kernel
from tests.sizes import scaled
from tests.testbed.components import need

MACHINE_NAMES = sorted(MACHINES)
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
AF_ALG, AF_VSOCK = 38, 40
LAST = 466
"""The newest call that Docker's profile names."""
SAMPLES = scaled(12, soak=200)
INTERESTING = [
    0, 1, 2, 8, 16, AF_ALG, 39, AF_VSOCK, 41, TIOCSTI, TIOCLINUX, 0x5413, 0x80, 0x20000, 0x20008, 0x40000, 0x3D0F00,
    0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x80000000, 0x7E020000, 0xFFFFFFFF,
    2**32, 2**32 + 8, 2**32 + AF_ALG, 2**32 + AF_VSOCK, 2**32 + 0x20000, 2**32 + TIOCSTI, 2**63, 2**64 - 1,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _specification() -> None:
    need("Docker's seccomp profile")


def names(machine: str) -> dict[int, str]:
    """The call of each number: by the kernel's headers, and for what is newer than they are by our table."""
    newer = {call.number: call.name for call in table.calls(machine)}
    return newer | {number: name for name, number in kernel.numbers(machine).items()}


def sampled(seed: int) -> list[tuple[int, ...]]:
    """Arguments of a call: each interesting value in the first two places, and random ones."""
    chance = random.Random(seed)  # noqa: S311 - a reproducible sample
    values = [(first, chance.choice(INTERESTING), 0, 0, 0, 0) for first in INTERESTING]
    values += [(chance.choice(INTERESTING), second, 0, 0, 0, 0) for second in INTERESTING]
    return values + [tuple(chance.getrandbits(64) for _ in range(6)) for _ in range(SAMPLES)]


def ask(machine: str, number: int, arguments: Sequence[int] = (), *, entry: int | None = None) -> evaluator.Ran:
    """Our filter's answer."""
    entry = MACHINES[machine] if entry is None else entry
    return evaluator.run(program(machine), machine=entry, number=number, arguments=arguments)


@cache
def closed(machine: str) -> list[tuple[int, tuple[int, ...]]]:
    """Calls that Docker refuses, with arguments."""
    known = names(machine)
    return [
        (number, arguments)
        for number in range(600)
        for arguments in (sampled(number)[:: 1 if known.get(number) in ("clone", "socket", "personality") else 16])
        if not docker.allows(machine, known.get(number, "?"), arguments)
    ]


@pytest.mark.parametrize("machine", MACHINE_NAMES)
def test_the_kernel_takes_it_and_it_is_short(machine: str) -> None:
    assert evaluator.complaints(program(machine)) == []
    assert len(program(machine)) // 8 < 256
    assert max(ask(machine, number).steps for number in range(500)) <= 24


def test_other_machines_are_refused_with_what_to_do() -> None:
    with pytest.raises(Unsupported) as caught:
        program("riscv64")
    assert "riscv64" in caught.value.message
    assert "aarch64 or x86_64" in caught.value.hint or "x86_64 or aarch64" in caught.value.hint


@pytest.mark.parametrize("machine", MACHINE_NAMES)
def test_the_tables_numbers_are_the_kernels(machine: str) -> None:
    ours = {call.name: call.number for call in table.calls(machine)}
    headers = kernel.numbers(machine)
    assert {name: number for name, number in headers.items() if number <= LAST and ours.get(name) != number} == {}
    assert {name for name, number in ours.items() if headers.get(name, number) != number} == set()
    newest = max(headers.values())
    assert {n for n, number in ours.items() if n not in headers and number <= newest} <= {"uretprobe", "uprobe"}
    assert max(ours.values()) == LAST
    assert len(set(ours.values())) == len(ours)


@pytest.mark.parametrize("machine", MACHINE_NAMES)
def test_each_call_is_answered_as_by_docker_but_where_ours_is_tighter(machine: str) -> None:
    known = names(machine)
    tighter = set()
    for number in range(600):
        name = known.get(number, "?")
        for arguments in sampled(number):
            answer, theirs = ask(machine, number, arguments), docker.allows(machine, name, arguments)
            if answer.allowed != theirs:
                assert theirs, (name, number, arguments)
                tighter.add((name, arguments[name == "ioctl"] & 0xFFFFFFFF))
            if not answer.allowed:
                missing = number > LAST or name == "clone3"
                assert answer.errno == (errno.ENOSYS if missing else errno.EPERM), (name, number)
    assert tighter == {("ioctl", TIOCSTI), ("ioctl", TIOCLINUX), ("socket", AF_ALG), ("socket", AF_VSOCK)}


@pytest.mark.parametrize("machine", MACHINE_NAMES)
def test_docker_names_no_call_that_the_table_lacks(machine: str) -> None:
    ours = {call.name for each in MACHINE_NAMES for call in table.calls(each)}
    headers = {name for each in MACHINE_NAMES for name in kernel.numbers(each)}
    assert docker.names() & headers <= ours
    allowed = {call.name for call in table.calls(machine) if call.answer == "allow"}
    assert {name for name in allowed if not docker.allows(machine, name, (0,) * 6)} == set()


@pytest.mark.parametrize("machine", MACHINE_NAMES)
def test_calls_that_are_allowed_by_number_read_no_argument_so_that_the_kernel_can_remember_the_answer(
    machine: str,
) -> None:
    answers = {call.number: call.answer for call in table.calls(machine)}
    assert {ask(machine, number).read for number, answer in answers.items() if answer == "allow"} == {frozenset({0, 4})}


@pytest.mark.parametrize("machine", MACHINE_NAMES)
def test_no_other_entry_leads_in(machine: str) -> None:
    i386, arm, x32 = 0x40000003, 0x40000028, 0x40000000
    others = {i386, arm, *MACHINES.values(), 0} - {MACHINES[machine]}
    numbers = [*range(600), 0x3FFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF]
    assert {ask(machine, number, entry=entry).errno for entry in others for number in numbers} == {errno.ENOSYS}
    assert {ask(machine, number | x32).errno for number in numbers} == {errno.ENOSYS}


@pytest.mark.parametrize("machine", MACHINE_NAMES)
def test_numbers_that_nobody_has_yet_are_missing(machine: str) -> None:
    numbers = [LAST + 1, LAST + 2, 500, 1000, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
    assert {ask(machine, number).errno for number in numbers} == {errno.ENOSYS}


def mutants(machine: str) -> Iterator[tuple[int, bytes]]:
    """The filter with one refusal turned into leave."""
    code = program(machine)
    for at, (op, _, _, value) in enumerate(evaluator.decode(code)):
        if op == 0x06 and value != evaluator.ALLOW:
            yield at, code[: at * 8] + struct.pack("<HBBI", 0x06, 0, 0, evaluator.ALLOW) + code[at * 8 + 8 :]


@pytest.mark.parametrize("machine", MACHINE_NAMES)
def test_each_refusal_that_is_turned_into_leave_is_seen(machine: str) -> None:
    entry = MACHINES[machine]
    unseen = [
        at
        for at, wrong in mutants(machine)
        if not any(evaluator.run(wrong, machine=entry, number=n, arguments=a).allowed for n, a in closed(machine))
    ]
    # the refusals that Docker does not have: another entry, and the ioctls that type into a terminal
    code = evaluator.decode(program(machine))
    spare = [at for at in unseen if at != 2 and code[at - 3][3] != TIOCSTI]
    assert spare == []
    assert len(unseen) == 2


ARGUMENT = st.one_of(st.sampled_from(INTERESTING), st.integers(0, 2**64 - 1))
NUMBER = st.one_of(st.integers(0, 600), st.integers(0, 2**32 - 1), st.integers(0x40000000, 0x40000258))


@settings(max_examples=scaled(400, soak=50_000), deadline=None)
@given(
    machine=st.sampled_from(MACHINE_NAMES),
    entry=st.one_of(st.sampled_from([*MACHINES.values(), 0x40000003, 0x40000028]), st.integers(0, 2**32 - 1)),
    number=NUMBER,
    arguments=st.tuples(*[ARGUMENT] * 6),
)
def test_no_call_escapes_the_reference(machine: str, entry: int, number: int, arguments: tuple[int, ...]) -> None:
    answer = ask(machine, number, arguments, entry=entry)
    if answer.allowed:
        assert entry == MACHINES[machine]
        assert docker.allows(machine, names(machine)[number], arguments)
    else:
        assert answer.errno in (errno.EPERM, errno.ENOSYS)
