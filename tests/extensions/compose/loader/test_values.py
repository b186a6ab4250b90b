"""Values by value: scalars, durations, sizes, command lines, variables and files of variables."""

from __future__ import annotations

import pytest

from sandboxer.errors import Invalid
from sandboxer.extensions.compose_ssh.loader import dotenv, scalars
from sandboxer.extensions.compose_ssh.loader.interpolation import interpolate
from sandboxer.extensions.compose_ssh.loader.limits import LoadUsage
from sandboxer.extensions.compose_ssh.loader.scalars import split_words


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("False", False),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("Off", "Off"), ("y", "y"),
        ("1", 1), ("-1", -1), ("+5", 5), ("017", 15), ("0o17", 15), ("0x1F", 31), ("0b11", 3), ("1_000", 1000),
        ("08", 8.0), ("1.50", 1.5), ("1e3", 1000.0), (".5", 0.5), ("-0", 0),
        ("22:22", "22:22"), ("1:2:3", "1:2:3"), ("2001-01-01", "2001-01-01"), ("1.2.3", "1.2.3"), ("0x", "0x"),
        ("-", "-"), ("1" * 100, "1" * 100),
    ],
)  # fmt: skip
def test_an_unquoted_scalar_has_the_value_that_go_yaml_gives_it(text: str, value: object) -> None:
    found = scalars.resolved(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"), (1, "1"), (1.5, "1.5"), (1000.0, "1000"), (1234567.5, "1.2345675e+06"), (1e20, "1e+20"),
        (0.00001, "1e-05"), (0.0001, "0.0001"), (None, ""), ("x", "x"), (8.0, "8"), (-2.5, "-2.5"),
    ],
)  # fmt: skip
def test_a_scalar_becomes_text_as_go_prints_it(value: object, text: str) -> None:
    assert scalars.text_of(value) == text


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("90s", "1m30s"), ("1m", "1m0s"), ("1h", "1h0m0s"), ("24h", "24h0m0s"), ("100ms", "100ms"), ("1.5s", "1.5s"),
        ("1m30s", "1m30s"), ("0", "0s"), ("0s", "0s"), ("1us", "1µs"), ("1500ms", "1.5s"), ("1d", "24h0m0s"),
        ("-1s", "-1s"), ("10", None), ("", None), ("1x", None), ("s", None), ("1s ", None),
    ],
)  # fmt: skip
def test_a_duration_is_printed_as_go_prints_it(text: str, printed: str | None) -> None:
    assert scalars.duration(text) == printed


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (512, 512), ("512", 512), ("64m", 64 << 20), ("1.5gb", 1610612736), ("1k", 1024), ("1KiB", 1024),
        ("12mb", 12 << 20), (-1, -1), ("1x", None), ("", None), ("m", None), (True, None), ("2 g", 2 << 30), ("1b", 1),
    ],
)  # fmt: skip
def test_a_size_is_a_number_of_bytes(value: object, size: int | None) -> None:
    assert scalars.size(value) == size


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a b", ["a", "b"]), ("", []), ("  a  ", ["a"]), ("a 'b c'", ["a", "b c"]), ('a "b c"', ["a", "b c"]),
        ("echo a && echo b", ["echo", "a"]), ("a | b", ["a"]), ("a; b", ["a"]), ("a > x", ["a"]), ("a 2> x", ["a"]),
        ("sh -c 'a; b' > x", ["sh", "-c", "a; b"]), ("a #b", ["a", "#b"]), (r"a\ b", ["a b"]), (r"'a\b'", [r"a\b"]),
        ("a ''", ["a", ""]), ("$(a)", ["$(a)"]), ("`x`", ["`x`"]),
        ("a (b)", None), ("a 'b", None), ('a"b', None), ("a\\", None),
    ],
)  # fmt: skip
def test_a_command_line_is_split_as_compose_splits_it(line: str, words: list[str] | None) -> None:
    assert split_words(line) == words


VARIABLES = {"A": "a", "EMPTY": "", "DOLLAR": "$A", "B": "b"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A", "a"), ("${A}", "a"), ("$$A", "$A"), ("$$$A", "$a"), ("$5", "$5"), ("a$", "a$"), ("$ A", "$ A"),
        ("${NO}", ""), ("$NO", ""), ("${NO-x}", "x"), ("${NO:-x}", "x"), ("${EMPTY-x}", ""), ("${EMPTY:-x}", "x"),
        ("${A:-x}", "a"), ("${A:+x}", "x"),
        ("${A+x}", "x"), ("${EMPTY:+x}", ""), ("${EMPTY+x}", "x"), ("${NO+x}", ""),
        ("${NO:-${B}}", "b"), ("${NO-${NO:-c}}d}", "cd}"), ("${NO:-{}}", "{}"), ("${NO:-$$x}", "$x"),
        ("${A:+${B}}", "b"),
        ("${NO:-x:-y}", "x:-y"), ("${NO-:-y}", ":-y"), ("${A:?e}", "a"), ("${EMPTY?e}", ""), ("$DOLLAR", "$A"),
        ("${NO:-a b}", "a b"), ("${A}${B}", "ab"), ("{$A}", "{a}"),
    ],
)  # fmt: skip
def test_variables_are_replaced(text: str, result: str) -> None:
    assert interpolate(text, VARIABLES, fail=ValueError) == result


@pytest.mark.parametrize(
    "text",
    ["${NO:?}", "${NO?why}", "${EMPTY:?why ${B}}", "${", "${A", "${}", "${5}", "${A/b}", "${A:=x}", "${a b}",
     "${NO:-a\nb}",
     "${NO:-" * 18 + "x" + "}" * 18],
)  # fmt: skip
def test_a_variable_that_is_missing_or_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"has|needs"):
        interpolate(text, VARIABLES, fail=ValueError)


def _parsed(text: str, **known: str) -> dict[str, str]:
    return dotenv.parse(text.encode(), name=".env", known=known, account=LoadUsage())


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=1\nB=${A}x\nC=$P\n", {"A": "1", "B": "1x", "C": "p"}),
        ("P=own\nF=$P", {"P": "own", "F": "p"}),
        ("export A=1\nexport\tB=2\nexportC=3\n  D = 4\nE: 5\nF=\n",
         {"A": "1", "B": "2", "exportC": "3", "D": "4", "E": "5", "F": ""}),
        ("G\nP\n", {"P": "p"}),
        ("A=\"x y\" # c\nB='x $P' \nC=x # c\nD=x#c\n", {"A": "x y", "B": "x $P", "C": "x", "D": "x#c"}),
        ('E="x\\ny\\tz \\"q\\""\nF=\'it\\\'s\'\n', {"E": 'x\ny\tz "q"', "F": "it's"}),
        ('A="a\nb"\nB=\'m\n$P\'\n', {"A": "a\nb", "B": "m\n$P"}),
        ("A-B=1\nC.D=2\nE[0]=3\n1A=1\n", {"A-B": "1", "C.D": "2", "E[0]": "3", "1A": "1"}),
        ("A=$$x\nC=\\$P\nD=\"\\$P\"\nE='$$x'\n", {"A": "$x", "C": "\\p", "D": "$P", "E": "$$x"}),
        ("A=${P:+x}${NO-y}${NO:-${P}}\n", {"A": "xyp"}),
        ('A=1\r\nB="2"\r\n#c\r\n', {"A": "1", "B": "2"}),
        ('A="x\\\\"\nB="y\\\\\\""\n', {"A": "x\\", "B": 'y\\"'}),
        ("A=#x\nB= #x\nC=x #\nD=\"\"# y\n", {"A": "#x", "B": "#x", "C": "x", "D": ""}),
        ('A="a"b="c"\n', {"A": "a", "b": "c"}),
        ("A=x\nA=y\n", {"A": "y"}),
        ("\ufeffA=1", {"A": "1"}),
        ("", {}),
        ("# only\n\n  # comments", {}),
    ],
)  # fmt: skip
def test_a_file_of_variables_is_read_as_compose_reads_it(text: str, values: dict[str, str]) -> None:
    assert _parsed(text, P="p") == values


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=1\nA B=1", 2),
        (";x=1", 1),
        ("A!=1", 1),
        ('\nA="x', 2),
        ("A='x'y'z'", 1),
        ("A=${P", 1),
        ("X=1\nY=${NO:?e}", 2),
    ],
)
def test_a_line_that_is_no_variable_is_refused_by_its_number(text: str, line: int) -> None:
    with pytest.raises(Invalid) as caught:
        _parsed(text)
    assert caught.value.message.startswith(f".env, line {line}:")
    assert caught.value.details == {"file": ".env", "line": line}


def test_bytes_that_are_no_text_do_not_stop_a_file_of_variables() -> None:
    assert dotenv.parse(b"A=\xff\n", name=".env", known={}, account=LoadUsage()) == {"A": "\ufffd"}
