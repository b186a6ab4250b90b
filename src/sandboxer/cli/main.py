"""The entry point: one of the two places in the program that catch errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sandboxer import __version__
from sandboxer.cli import signals
from sandboxer.cli.output import complain, note, wants_json
from sandboxer.errors import Internal, Interrupted, Invalid, SandboxerError, Timeout, exit_code_of
from sandboxer.masking import masked

_FAILED_INSIDE = 125
"""What `exec` answers when sandboxer itself failed, so that the command's own codes stay its own (contract §3)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        sys.stdout.write(f"sandboxer {__version__}\n")
        return 0
    as_json = wants_json("--json" in _own_words(words))
    verb = words[0] if words else ""
    signals.install()
    try:
        status = _call(words)
        sys.stdout.flush()
    except SandboxerError as error:
        complain(error, as_json=as_json)
        return _status(verb, error)
    except signals.Signalled as signalled:
        hint = "run `sandboxer list` to see what is there"
        interrupted = Interrupted("interrupted", signal_number=signalled.number, hint=hint)
        complain(interrupted, as_json=as_json)
        return exit_code_of(interrupted)
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last resort: a bug is told as one
        complain(_bug(error), as_json=as_json)
        return _FAILED_INSIDE if verb == "exec" else Internal.exit_code
    return status


def _call(words: list[str]) -> int:
    import typer  # `--version` does without

    from sandboxer.cli.table import build

    usage_error: type[Exception] = typer.BadParameter.__mro__[
        1
    ]  # the parser's own error; typer exports only its subclass
    try:
        answer = build(words)(args=words, prog_name="sandboxer", standalone_mode=False)
    except typer.Abort:
        raise Interrupted("aborted", hint="nothing was done") from None
    except usage_error as error:
        raise _usage(error) from None
    return answer if isinstance(answer, int) else 0


def _usage(error: BaseException) -> Invalid:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "sandboxer"
    format_message = getattr(error, "format_message", lambda: str(error))
    return Invalid(str(format_message()), hint=f"run `{path} --help`")


def _status(verb: str, error: SandboxerError) -> int:
    if verb == "exec" and not isinstance(error, Timeout | Interrupted):
        return _FAILED_INSIDE
    return exit_code_of(error)


def _bug(error: Exception) -> Internal:
    if os.environ.get("SANDBOXER_DEBUG"):
        import traceback

        note(masked("".join(traceback.format_exception(error))))
    return Internal(
        f"{type(error).__name__}: {error}", hint="this is a bug: run it again with SANDBOXER_DEBUG=1 and report it"
    )


def _own_words(words: list[str]) -> list[str]:
    """The words before `--`: what comes after belongs to the command inside."""
    return words[: words.index("--")] if "--" in words else words
