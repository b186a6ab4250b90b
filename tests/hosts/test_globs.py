"""A pattern of a stranger costs what its length says, however many ways there are to match it."""

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sandboxer
from sandboxer.errors import Invalid, Timeout
from sandboxer.hosts.trees import gitignore
from sandboxer.hosts.trees.globs import DIRECTORIES, NOTHING, ONE, CharacterClass, Skip, Star, Step, compiled
from sandboxer.hosts.trees.sync import scan
from sandboxer.hosts.trees.tar_writer import write_tar
from sandboxer.timing import Deadline

SECONDS = 60
"""Each of the attacks below takes milliseconds now; before, hours to ages."""

IGNORED = "gitignore.ignored(gitignore.parse({}), {}, is_directory=False)".format
EXCLUDED = "rsync_patterns.rule({}).matches({}, is_directory=False)".format
ATTACKS = {
    "stars and a letter in .gitignore": IGNORED("b'*a' * 14 + b'b'", "'a' * 200"),
    "directories in .gitignore": IGNORED("b'**/a/' * 40 + b'b'", "'/'.join('a' * 400)"),
    "stars in directories in .gitignore": IGNORED("b'**/*a*' * 30 + b'b'", "'a' * 300"),
    "question marks in .gitignore": IGNORED("b'*?' * 40 + b'b'", "'a' * 300"),
    "classes in .gitignore": IGNORED("b'*[a-z]' * 40 + b'[!a]'", "'a' * 300"),
    "a class of many names": IGNORED("b'*[' + b'[:alpha:]' * 400 + b'-]*0'", "'a' * 300"),
    "an open class": IGNORED("b'[[:' * 1300", "'a' * 300"),
    "stars in an exclude pattern": EXCLUDED("'*a' * 20 + 'b'", "'a' * 300"),
    "double stars in an exclude pattern": EXCLUDED("'**a' * 20 + 'b'", "'a' * 300"),
    "stars in known_hosts": "known_hosts.wildcard_matches('*a' * 20 + 'b', 'a' * 200)",
    "a long line of known_hosts": "known_hosts.host_matches(','.join(['*a' * 20 + 'b'] * 200), 'a' * 200)",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_pattern_with_many_ways_to_match_ends(attack: str) -> None:
    """In a process of its own: a regular expression that runs hears no signal and no deadline."""
    program = (
        "from sandboxer.hosts.ssh import known_hosts\n"
        "from sandboxer.hosts.trees import gitignore, rsync_patterns\n"
        f"assert {attack} is False\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=SECONDS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Those of the policy for compose files are put together from its own texts. Each was tried against long hostile ones.
LOOKED_AT = {
    "extensions/compose_ssh/errors.py",  # our own table
    *(f"extensions/compose_ssh/policy/{name}.py" for name in ("checks", "evaluation", "names", "services", "topology")),
    "hosts/ssh/session.py",  # hexadecimal digits of our own
    "selfcheck/findings.py",  # a constant
}


def test_no_module_gives_a_pattern_of_others_to_a_regular_expression() -> None:
    """What is compiled is written out in the sources, but for the modules above. Whoever adds one has looked at where
    its pattern comes from; a pattern of others is for `globs`."""
    package = Path(sandboxer.__file__).parent
    found = {str(path.relative_to(package)) for path in package.rglob("*.py") if made_patterns(path.read_text())}
    assert found - LOOKED_AT == set()


def made_patterns(source: str) -> list[str]:
    """The calls of `re` and `fnmatch` whose pattern is no text of the source."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and node.args]
    return [
        ast.unparse(call)
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id in ("re", "fnmatch")
        and call.func.attr != "escape"
        and (call.func.value.id == "fnmatch" or not isinstance(call.args[0], ast.Constant))
    ]


def test_the_search_for_such_patterns_finds_them() -> None:
    for source in ("re.compile(x)", "re.fullmatch(f'{x}', y)", "fnmatch.fnmatch(x, y)"):
        assert made_patterns(source)
    assert not made_patterns("re.compile('x' 'y', re.I)")


step = st.one_of(
    st.sampled_from(["a", "b", "/"]),
    st.sampled_from([ONE, NOTHING, CharacterClass((("a", "b"),)), CharacterClass((("a", "a"),), negated=True)]),
    st.sampled_from([Star(slashes=True), Star(slashes=False)]),
)
part = st.one_of(step.map(lambda one: [one]), st.just(list(DIRECTORIES)))
ending = st.sampled_from([[], [Skip(2), "/", Star(slashes=True)]])


def expression(steps: list[Step]) -> str:
    """The regular expression that means the same: for short texts it is the oracle."""
    out = ""
    at = 0
    while at < len(steps):
        one = steps[at]
        if isinstance(one, Skip):
            out += f"(?:{expression(steps[at + 1 : at + 1 + one.count])})?"
            at += one.count
        elif isinstance(one, Star):
            out += ".*" if one.slashes else "[^/]*"
        elif isinstance(one, CharacterClass):
            inside = "".join(f"{first}-{last}" for first, last in one.ranges)
            out += f"(?!/)[{'^' if one.negated else ''}{inside}]" if inside else "[^/]" if one.negated else "(?!)"
        else:
            out += one
        at += 1
    return out


@given(parts=st.lists(part, max_size=6), end=ending, text=st.text(alphabet="ab/c", max_size=9))
def test_a_glob_matches_what_the_expression_matches(parts: list[list[Step]], end: list[Step], text: str) -> None:
    steps = [one for each in parts for one in each] + end
    assert compiled(steps).matches(text) is (re.fullmatch(expression(steps), text) is not None)


def test_rules_that_are_too_many_or_too_long_are_named() -> None:
    with pytest.raises(Invalid, match="line 2: longer than 4096 bytes"):
        gitignore.parse(b"a\n" + b"b" * 4097)
    with pytest.raises(Invalid, match="more than 20000 rules"):
        gitignore.parse(b"a\n" * 20_001)
    with pytest.raises(Invalid, match="larger than 1024 KiB"):
        gitignore.parse(b"#" * (1 << 20) + b"\n")
    rules = gitignore.parse(b"a\n" * 15_000)
    with pytest.raises(Invalid, match="x: more than 20000 rules"):
        gitignore.below(rules, rules, source="x")


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / ".gitignore").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Invalid, match=re.escape(f"{tmp_path}/.gitignore is larger")):
        scan(tmp_path, gitignore=True)


def test_the_deadline_is_kept_while_a_tree_is_matched(tmp_path: Path) -> None:
    rules = b"".join(b"*a*%d*b*c\n" % n for n in range(2000))
    (tmp_path / ".gitignore").write_bytes(rules)
    for n in range(300):
        (tmp_path / f"{'a' * 100}{n}{'b' * 50}c").touch()

    def ending() -> Deadline:
        ticks = iter(range(1_000_000))
        return Deadline(50, clock=lambda: next(ticks))  # passes at the fiftieth look

    with pytest.raises(Timeout, match="gitignore"):
        scan(tmp_path, gitignore=True, deadline=ending())
    with pytest.raises(Timeout, match="gitignore"):
        write_tar(tmp_path, len, gitignore=True, deadline=ending())


def test_a_tree_that_is_too_deep_is_named(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import os, sys
        os.chdir(sys.argv[1])
        for _ in range(520):
            os.mkdir("d")
            os.chdir("d")
    """)
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    with pytest.raises(Invalid, match="deeper than 512"):
        scan(tmp_path, gitignore=True)
    with pytest.raises(Invalid, match="deeper than 512"):
        write_tar(tmp_path, len)
