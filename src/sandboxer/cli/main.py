"""The entry point: one of the two places in the program that catch errors."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from sandboxer import __version__
from sandboxer.cli import signals, standard_streams
from sandboxer.cli.arguments import JSON, before_separator, move_json_option
from sandboxer.cli.output import (
    OutputClosed,
    check_output_format,
    complain,
    emit,
    flush,
    note,
    say,
    wants_json,
    written_to,
)
from sandboxer.errors import Internal, Interrupted, Invalid, SandboxerError, Timeout, exit_code_of
from sandboxer.masking import masked

_FAILED_INSIDE = 125
"""What `exec`, `run`, `shell` and `ssh` answer when sandboxer itself failed, so that the command's own
codes stay its own (contract §3)."""

_ENTERING = frozenset({"exec", "run", "shell", "ssh", "_ssh-proxy"})

_PRINTED_BY_THE_PARSER = frozenset({"--help", "-h", "--version", "--show-completion"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. Without `argv` the process is this command's."""
    if argv is None:
        gc.disable()  # until all is imported: `_call`
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = wants_json(JSON in before_separator(words))
    standard_streams.prepare()
    signals.install()
    verb = ""
    try:
        if "--version" in words[:2] and {*words} <= {"--version", JSON}:
            _say_version(as_json=as_json)
            return 0
        words = _understood(words, as_json=as_json)
        verb = words[0] if words else ""
        signals.announce(verb)
        check_output_format()
        status = _call(words, own_process=argv is None)
        flush()
    except SandboxerError as error:
        _tell(error, as_json=as_json)
        return _status(verb, error)
    except signals.Signalled as signalled:
        return _interrupted(verb, signalled, as_json=as_json)
    except OutputClosed as closed:
        standard_streams.discard(closed.stream)  # whoever read our output has enough
        return 0
    except Exception as error:  # noqa: BLE001 - the last resort: a bug is told as one
        if (interrupt := _signal_behind(error)) is not None:
            return _interrupted(verb, interrupt, as_json=as_json)
        _tell(_bug(error), as_json=as_json)
        return _FAILED_INSIDE if verb in _ENTERING else Internal.exit_code
    return status


_LEFT = {
    None: ("interrupted", ""),
    "nothing": ("interrupted before it was ready; what was begun was taken back", "create it again"),
    "kept": ("interrupted before it was ready; what was begun is kept", ""),
    "unknown": ("interrupted before it was ready; what was begun could not all be taken back", ""),
    "destroyed": ("interrupted; the command was ended, and its sandbox destroyed", "run it again"),
    "stays": ("interrupted; the command was ended, and its sandbox stays", ""),
    "going": ("interrupted; its sandbox could not be destroyed yet", "run `sandboxer reconcile --apply`"),
}
"""What an interrupt comes to, by what there still is: message and hint, where it is not that of the command."""


def _interrupted(verb: str, signalled: signals.Signalled, *, as_json: bool) -> int:
    message, hint = _LEFT[signalled.left]
    interrupted = Interrupted(
        message,
        signal_number=signalled.number,
        hint=hint or signals.notice_of(verb).hint,
        sandbox_id=signalled.sandbox_id,
    )
    if signalled.left in ("unknown", "going"):
        interrupted.outcome = "unknown"
    _tell(interrupted, as_json=as_json)
    return exit_code_of(interrupted)


def _signal_behind(error: BaseException | None) -> signals.Signalled | None:
    """The interrupt that an exception came from. One that strikes in the wait of a lock or a queue comes out of its
    `with` as the RuntimeError of a lock that is not held."""
    while error is not None and not isinstance(error, signals.Signalled):
        error = error.__context__
    return error


def _tell(error: SandboxerError, *, as_json: bool) -> None:
    """Say what went wrong, on stderr when stdout is what went wrong."""
    try:
        complain(error, as_json=as_json)
        flush()
    except OutputClosed as closed:
        standard_streams.discard(closed.stream)
    except SandboxerError:
        standard_streams.discard(sys.stdout)
        complain(error, as_json=False)


def _say_version(*, as_json: bool) -> None:
    if as_json:
        emit({"version": __version__})
    else:
        say(f"sandboxer {__version__}")
    flush()


def _understood(words: list[str], *, as_json: bool) -> list[str]:
    """The words as the parser wants them. A person who names no command is shown what there is."""
    from sandboxer.cli.commands import GROUPS

    words = move_json_option(words[1:] if words[:1] == ["--"] else words, GROUPS)
    nothing_yet = not words or (len(words) == 1 and words[0] in GROUPS)
    return [*words, "--help"] if nothing_yet and not as_json else words


def _call(words: list[str], *, own_process: bool) -> int:
    import click  # `--version` does without

    from sandboxer.cli.commands import build

    program = build(words)
    if own_process:
        # what was imported stays to the end: looking for garbage in it, again and again, is a fifth of a short command
        gc.freeze()
        gc.enable()
    try:
        if "_SANDBOXER_COMPLETE" in os.environ:
            program.main(args=words, prog_name="sandboxer")
        # what the parser's own `main` does, but that it makes exit status 1 of every broken pipe, without a word
        with program.make_context("sandboxer", list(words)) as context:
            answer = program.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.Abort:
        raise Interrupted("aborted", hint="nothing was done") from None
    except click.UsageError as error:
        raise _usage(error, words) from None
    except OSError:
        if _PRINTED_BY_THE_PARSER.isdisjoint(before_separator(words)):
            raise
        with written_to(sys.stdout):
            raise  # then nothing else was done but to print
    return answer if isinstance(answer, int) else 0


def _usage(error: BaseException, words: Sequence[str]) -> Invalid:
    from sandboxer.cli.commands import COMMANDS, GROUPS

    verb, rest = (words[0], words[1:2]) if words else ("", [])
    path = ["sandboxer", *([verb] if verb in COMMANDS or verb in GROUPS else [])]
    path += [word for word in rest if verb in GROUPS and word in GROUPS[verb][1]]
    hint = f"run `{' '.join(path)} --help`"
    if verb in {"exec", "run"} and "--" not in words:
        where = "exec ID" if verb == "exec" else verb
        hint = f"write -- ahead of the command: sandboxer {where} -- CMD ARG...; or {hint}"
    format_message = getattr(error, "format_message", lambda: str(error))
    return Invalid(str(format_message()), hint=hint)


def _status(verb: str, error: SandboxerError) -> int:
    if verb in _ENTERING and not isinstance(error, Timeout | Interrupted):
        return _FAILED_INSIDE
    return exit_code_of(error)


def _bug(error: Exception) -> Internal:
    if os.environ.get("SANDBOXER_DEBUG"):
        import traceback

        note(masked("".join(traceback.format_exception(error))))
    return Internal(
        f"{type(error).__name__}: {error}", hint="this is a bug: run it again with SANDBOXER_DEBUG=1 and report it"
    )
