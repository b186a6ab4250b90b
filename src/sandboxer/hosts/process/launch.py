"""How a program is handed to a shell without any of its words in anybody's argv, and how its session is ended.

The string that an SSH server (or a namespace launcher) gets is the constant `BOOT`; the command itself follows as one
header line on stdin, and what comes after that line is the program's own. A header is made of constant shell text and
of words quoted by `quote` alone. The shell stays as the session's leader, which records the session, carries the
time-out and tells signals as 128 + n.

All shell text here is POSIX sh plus a mounted /proc (dash, busybox ash and bash run it); it needs no procps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from sandboxer.errors import Invalid
from sandboxer.names import check_env_name

BOOT: Final = 'IFS= read -r sbx_h && eval "$sbx_h"'
"""Reads one header line from stdin byte by byte (so nothing of what follows is lost) and runs it.

It holds no single quote, backslash, exclamation mark or newline: any login shell passes `sh -c 'BOOT'` on unchanged."""
SHELL: Final = "/bin/sh"
"""Not by PATH: the first `sh` of a login may lie in somebody's home."""
SYSTEM_FIRST: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH; "
"""What a script of ours begins with, so that its tools are the system's; programs of others get the login's PATH."""
_BY_SYSTEM_PATH: Final = SYSTEM_FIRST + 'exec "$@"'
SHELL_BOOT: Final = f"{SHELL} -c '{BOOT}'"
"""What an SSH server is asked to run."""
BOOT_FD3: Final = 'IFS= read -r sbx_h <&3 && eval "$sbx_h"'
"""The same with the header on descriptor 3, for programs whose stdin is a terminal."""

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_NEWLINE = "'\"$sbx_nl\"'"
_DEFINE_NEWLINE = "sbx_nl=$(echo; echo _); sbx_nl=${sbx_nl%_}"
# $(...) takes trailing newlines away, so a character stands behind the one that is wanted

# /proc/PID/stat behind the last ")" of the name, which may itself hold anything: state ppid pgrp session ... start
_READ_STAT: Final = (
    "sbx_rest(){ sbx_l=; while IFS= read -r sbx_m || [ -n \"$sbx_m\" ]; do sbx_l=$sbx_l$sbx_m; done <\"/proc/$1/stat\" "
    "|| return 1; sbx_l=${sbx_l##*) }; [ -n \"$sbx_l\" ]; } 2>/dev/null; "
    'sbx_of(){ sbx_rest "$1" || return 1; set -- $sbx_l; sbx_ppid=$2 sbx_sess=$4 sbx_start=${20}; }; '
)  # fmt: skip
# Kills every process of session $1 except $2, the leader last: while it lives the number cannot mean another session.
# Nothing is left only when two looks in a row see nothing: what is started after a listing was read is not in it,
# although the one who started it may be seen dead a moment later.
_END_SESSION: Final = (
    "sbx_end(){ sbx_i=0 sbx_z=0; while [ $sbx_i -lt 100 ]; do sbx_n= sbx_o=; "
    "for sbx_p in /proc/[0-9]*; do sbx_p=${sbx_p#/proc/}; "
    'sbx_rest "$sbx_p" || continue; case $sbx_l in [ZX]*) continue;; esac; sbx_l=${sbx_l#* * * }; '
    '[ "${sbx_l%% *}" = "$1" ] || continue; '
    'case $sbx_p in "$1") sbx_o=$1;; "$2") ;; *) sbx_n="$sbx_n $sbx_p";; esac; done; '
    'sbx_n=${sbx_n:-$sbx_o}; if [ -n "$sbx_n" ]; then sbx_z=0; kill -9 $sbx_n 2>/dev/null; '
    "else sbx_z=$((sbx_z+1)); [ $sbx_z -lt 2 ] || return 0; fi; "
    "sbx_i=$((sbx_i+1)); [ $sbx_i -lt 20 ] || sleep 1; done; return 1; }; "
)  # fmt: skip
FUNCTIONS: Final = "sbx_path=${PATH-/usr/bin:/bin}; " + SYSTEM_FIRST + _READ_STAT + _END_SESSION
"""Begins with SYSTEM_FIRST; the login's PATH is kept in $sbx_path."""

END_TRACKED: Final = (
    FUNCTIONS + "read -r sbx_b </proc/sys/kernel/random/boot_id; sbx_k=0 sbx_bad=0; "
    # Whoever owns a folder above may put another directory in its place, with records that name any process: they are
    # believed only in one of ours that nobody else can write, and by names without a way.
    'cd -P -- "$1" 2>/dev/null || { [ ! -d "$1" ] && echo 0; exit; }; sbx_d=$(pwd -P); '
    'case ${sbx_d##*/}$(LC_ALL=C ls -ldn .) in "${1##*/}"d????-??-?*) ;; *) echo 0; exit;; esac; '
    "[ -O . ] || { echo 0; exit; }; "
    'for sbx_f in [0-9]*.*.*; do [ -e "$sbx_f" ] || continue; sbx_r=${sbx_f##*/}; sbx_s=${sbx_r%%.*}; '
    "sbx_r=${sbx_r#*.}; "
    'if [ "${sbx_r#*.}" = "$sbx_b" ] && sbx_of "$sbx_s" && [ "$sbx_sess" = "$sbx_s" ] '
    '&& [ "$sbx_start" = "${sbx_r%%.*}" ]; then '
    'if sbx_end "$sbx_s" 0; then sbx_k=$((sbx_k+1)); else sbx_bad=1; continue; fi; fi; '
    'rm -f -- "$sbx_f"; done; echo $sbx_k; exit $sbx_bad'
)  # fmt: skip
"""A script: ends every session recorded in directory $1 whose leader is still the recorded process; prints how many."""

END_ONE: Final = (
    FUNCTIONS + 'if sbx_of "$1" && [ "$sbx_sess" = "$1" ] && [ "$sbx_start" = "$2" ]; then sbx_end "$1" 0 || exit 1; '
    'fi; [ -z "$3" ] || rm -f -- "$3/$1.$2."*'
)
"""A script: ends the session of leader $1, started at $2 (clock ticks), recorded in directory $3 or nowhere."""

_WATCH_TIME: Final = "sleep {seconds} & wait $!; sbx_fire"
_WATCH_PARENT: Final = (
    "sbx_of $sbx_sid; sbx_was=$sbx_ppid; while :; do sleep 30 & wait $!; sbx_of $sbx_sid || exit 0; "
    '[ "$sbx_ppid" = "$sbx_was" ] || sbx_fire; done'
)
_WATCH_PIPE: Final = "read -r sbx_x <&3; sbx_fire"

# The order matters: the record and the watcher are there before the program is. The leader's own stderr is nothing,
# because shells write "Killed" and the like there; the program gets the real one back from descriptor 4. The program
# is exec'd in a subshell, so that neither builtins nor functions can stand in for it, in the foreground, so that it
# keeps its interrupt signals.
_SUPERVISE: Final = (
    "sbx_of $$; sbx_sid=$sbx_sess; [ $sbx_sid = $$ ] || sbx_of $sbx_sid; sbx_f=; __SAY__"
    'if [ -n "$sbx_track" ]; then [ -d "$sbx_track" ] || mkdir -m 700 "$sbx_track" || [ -d "$sbx_track" ] || exit 126; '
    "read -r sbx_b </proc/sys/kernel/random/boot_id; sbx_f=$sbx_track/$sbx_sid.$sbx_start.$sbx_b; "
    '{ true; } >"$sbx_f" || exit 126; fi; '
    # the program itself first, by its parent: looking through /proc takes a while on a busy machine
    'sbx_fire(){ trap "" TERM HUP; read -r sbx_me sbx_x </proc/self/stat; sbx_n=; '
    'read -r sbx_n <"/proc/$$/task/$$/children"; for sbx_p in $sbx_n; do [ "$sbx_p" = "$sbx_me" ] || '
    '{ sbx_of "$sbx_p" && [ "$sbx_sess" = "$sbx_sid" ] && kill -9 "$sbx_p"; }; done 2>/dev/null; '
    'sbx_end "$sbx_sid" "$sbx_me"; '
    '[ -z "$sbx_f" ] || rm -f "$sbx_f"; exit 0; }; '
    "exec 4>&2 2>/dev/null; ( exec </dev/null >/dev/null 4>&-; __WATCH__ ) & sbx_w=$!; trap : INT QUIT; "
    "( exec 2>&4 4>&- __FD3__; PATH=$sbx_path; __PROGRAM__ ); sbx_c=$?; "
    'kill $sbx_w; wait $sbx_w; __FORGET__exit $sbx_c'
)  # fmt: skip
# -9: until it has become `sleep`, the child still has this shell's handler, which would swallow any other signal
_TERMINABLE: Final = 'trap "kill -9 \\$! 2>/dev/null; wait; exit 0" TERM; trap sbx_fire HUP; '


_FORGET: Final = '[ -z "$sbx_f" ] || rm -f "$sbx_f"; '


def _supervise(*, watch: str, say: str, fd3: str, program: str, forget: str = _FORGET) -> str:
    text = _SUPERVISE.replace("__WATCH__", watch).replace("__SAY__", say).replace("__FD3__", fd3)
    text = text.replace("__FORGET__", forget)
    return FUNCTIONS + text.replace("__PROGRAM__", program)


LOCAL: Final = (
    "sbx_track=$1 sbx_cwd=$2 sbx_tty=$3 sbx_clean=$4 sbx_pre=$5; shift 5; "
    '[ -z "$sbx_tty" ] || exec <>"$sbx_tty" >&0 2>&1; '
    + _supervise(
        watch=_WATCH_PIPE,
        say="",
        fd3="3<&-",
        forget="",  # we do, which takes no program; when we die before that, whoever reads the record finds it dead
        program='[ -z "$sbx_pre" ] || exec 3<&5 5<&-; '
        '[ -z "$sbx_cwd" ] || cd "$sbx_cwd" || exit 126; '
        '[ -z "$sbx_clean" ] || unset PWD OLDPWD SHLVL; exec "$@"',
    )
)
"""The leader of a session on this machine: arguments are the track directory, the working directory, the terminal, `1`
for a clean environment, `1` when descriptor 5 shall be the program's 3 (each may be empty), then the program. The
leader's own 3 is a pipe that ends when we die."""

# Whoever starts us may not have made a session of our own (dropbear, a login shell that forks): then we make one.
_OWN_SESSION: Final = (
    "read -r sbx_l </proc/$$/stat; sbx_l=${sbx_l##*) }; sbx_l=${sbx_l#* * * }; "
    f"[ \"${{sbx_l%% *}}\" = $$ ] || {{ ( exec $({SYSTEM_FIRST}command -v setsid) {SHELL} -c '{BOOT}' ); "
    f"exit $?; }}; {BOOT}"
)


def quote(word: str) -> str:
    """One shell word, on one line; raises Invalid for a NUL, which no argument can hold. A newline becomes the
    variable that `_lines` defines."""
    if "\0" in word:
        raise Invalid("an argument holds a NUL character", hint="pass such data by stdin or a file")
    if _PLAIN.fullmatch(word):
        return word
    return "'" + word.replace("'", "'\"'\"'").replace("\n", _NEWLINE) + "'"


def anchored(path: str) -> str:
    """The path in a form that cannot be read as an option or as `cd -`."""
    return path if path.startswith("/") else f"./{path}"


def by_system_path(*argv: str) -> list[str]:
    """The words that run a program of the system's, whatever the login's PATH has first."""
    return [SHELL, "-c", _BY_SYSTEM_PATH, "sh", *argv]


def program_of(argv: Sequence[str]) -> str:
    """The program's name, for messages."""
    if list(argv[:3]) == [SHELL, "-c", _BY_SYSTEM_PATH]:
        return argv[4]
    return argv[0] if argv else "the command"


def check_argv(argv: Sequence[str]) -> None:
    """Raise Invalid when `argv` cannot name a program."""
    if not argv or not argv[0] or argv[0].startswith("-"):
        raise Invalid(
            "the command is empty" if not argv or not argv[0] else f"the program's name {argv[0][:80]!r} starts with -",
            hint="give the program and its arguments, like: ls -l",
        )
    if any("\0" in word for word in argv):
        raise Invalid("an argument holds a NUL character", hint="pass such data by stdin or a file")


def check_env(env: Mapping[str, str]) -> None:
    """Raise Invalid for a name or value that no environment can hold."""
    for name, value in env.items():
        check_env_name(name)
        if "\0" in value:
            raise Invalid(f"the environment variable {name} holds a NUL character", hint="pass such data in a file")


def _program(argv: Sequence[str], *, env: Mapping[str, str], cwd: str | None, clean_env: bool) -> str:
    check_argv(argv)
    check_env(env)
    parts = []
    if cwd is not None:
        parts.append(f"cd {quote(anchored(cwd))} || exit 126")
    if clean_env:
        parts.append("unset PWD OLDPWD SHLVL")
    parts += [f"export {name}={quote(value)}" for name, value in env.items()]
    parts.append("exec " + " ".join(map(quote, argv)))
    return "; ".join(parts)


def _lines(lines: Sequence[str]) -> bytes:
    with_newline = [f"{_DEFINE_NEWLINE}; {line}" if _NEWLINE in line else line for line in lines]
    return "".join(f"{line}\n" for line in with_newline).encode("utf-8", "surrogateescape")


def _clean(boot: str) -> str:
    again = f'env -i PATH="$sbx_path" ${{HOME+"HOME=$HOME"}} ${{LANG+"LANG=$LANG"}} {SHELL} -c \'{boot}\''
    return f"sbx_path=$PATH; {SYSTEM_FIRST}exec {again}"


def supervised(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    clean_env: bool = False,
    track: str | None = None,
    seconds: float | None = None,
    token: str,
    tty: bool = False,
    keep_fd3: bool = False,
) -> bytes:
    """The header of a program in a session of its own, on another machine.

    Before the program starts, a line `token PID START` is written to stdout: the session's leader. What stands before
    it is the login shell's noise. After `seconds` the session kills itself; without them, once its parent (the SSH
    server's process for our connection) is gone. With `tty` the header is read from descriptor 3, and with `keep_fd3`
    the program finds there what followed.
    """
    boot = BOOT_FD3 if tty else BOOT
    watch = _TERMINABLE + (_WATCH_PARENT if seconds is None else _WATCH_TIME.format(seconds=max(1, int(seconds))))
    program = _program(argv, env=env or {}, cwd=cwd, clean_env=clean_env)
    main = f"sbx_track={quote(anchored(track)) if track else ''}; " + _supervise(
        watch=watch, say=f'echo "{token} $sbx_sid $sbx_start"; ', fd3="" if keep_fd3 else "3<&-", program=program
    )
    lines = [] if tty else [_OWN_SESSION]
    return _lines([*lines, _clean(boot), main] if clean_env else [*lines, main])


START: Final = (
    'sbx_log=$1; shift; command -v "$1" >/dev/null || { echo "$1: not found" >&2; exit 127; }; '
    f"sbx_path=$PATH; {SYSTEM_FIRST}"
    "sbx_s=$(command -v setsid) || { echo setsid: not found >&2; exit 127; }; "
    'if [ -n "$sbx_log" ]; then { true; } >>"$sbx_log" || exit 126; else sbx_log=/dev/null; fi; '
    'sbx_d=$(mktemp) && exec 5<"$sbx_d" && cat >"$sbx_d" && rm -f "$sbx_d" || exit 126; '
    'PATH=$sbx_path; exec "$sbx_s" "$sbx_s" "$@" <&5 >>"$sbx_log" 2>&1 5<&-'
)
"""A script: starts the program $2... for good, with what is on stdin as its stdin and its output added to file $1 (or
nowhere). The inner `setsid` leads a session, hence it forks and ends: the program is nobody's child."""
