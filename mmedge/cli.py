"""The command line: registers the commands; the only place that prints errors and sets exit codes."""

from __future__ import annotations

import atexit
import errno
import json
import logging
import os
import platform
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from mmedge import __version__
from mmedge.errors import MmedgeError, ResourceError, UsageError
from mmedge.signals import SIGNALLED, Stopped, raise_on_signals, stopped

COMMANDS = (
    "export",
    "check",
    "compile",
    "caption",
    "ask",
    "chat",
    "classify",
    "index",
    "search",
    "verify",
    "inspect",
    "profile",
    "report",
    "compare",
    "gate",
    "layers",
    "roofline",
    "doctor",
    "pack",
    "targets",
    "recipes",
)
"""Each is the function of this name in ``mmedge/commands/<name>.py``, a module that imports next to nothing itself."""

EXIT_CODES = {
    0: "done",
    1: "internal error: a bug, described in a report file",
    2: "usage: a command, an option, a recipe, or a bundle that is not there",
    3: "a picture, a text, a tensor or a calibration sample that cannot be used",
    4: "a model or bundle that is damaged, unsupported or not to be trusted",
    5: "an engine that is missing, too old or cannot run the graph",
    6: "not enough disk, memory or time",
    7: "graphs or answers are worse than the bound",
    8: "slower or larger than the bound",
    9: "inconclusive: too noisy, or too few samples",
    10: "another process is writing the same bundle",
    11: "a download failed",
    130: "interrupted (129 hung up, 141 nobody reads the output, 143 terminated)",
}

REFUSALS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}
"""What the system answers when it lacks something, rather than when the request was wrong."""

MISTAKES = {errno.EACCES, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR}
"""What it answers when a path was wrong."""

STDOUT = 1


def main() -> int:
    """Run the command line of this process and return its exit code."""
    raise_on_signals()
    logging.addLevelName(logging.WARNING, "warning")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    if isinstance(sys.stdout, TextIOWrapper):  # it is None when closed
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text
    code = run(sys.argv[1:])
    if code > SIGNALLED:
        _leave_at_once(code)
    return code


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; whatever goes wrong is printed."""
    options = set(takewhile(lambda argument: argument != "--", arguments))
    try:
        result = _app()([argument for argument in arguments if argument != "--debug"])
        if sys.stdout:
            sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return _drop_output()
        if "--debug" in options:
            traceback.print_exc()
        problem = _explain(stopped[-1] if stopped else error, arguments)
        _show(problem, as_json="--json" in options)
        return problem.exit_code


def _app() -> App:
    codes = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())
    app = App(
        name="mmedge",
        help="Multimodal models on edge devices: export them with torch, run them without.",
        help_epilogue=f"Every command takes --debug, which shows where an error comes from.\n\nExit codes:\n{codes}",
        help_format="plaintext",
        version=__version__,
        default_parameter=Parameter(negative=()),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    for position, name in enumerate(COMMANDS):
        command = getattr(import_module(f"mmedge.commands.{name}"), name)
        app.command(command, name=name, sort_key=position, help_epilogue="")
    return app


def _explain(error: BaseException, arguments: Sequence[str]) -> MmedgeError:
    if isinstance(error, MmedgeError):
        return error
    if isinstance(error, CycloptsError):
        return _usage(error)
    if isinstance(error, KeyboardInterrupt):
        problem = MmedgeError(f"stopped by {error}" if isinstance(error, Stopped) else "interrupted")
        problem.exit_code = getattr(error, "exit_code", 130)
        return problem
    if isinstance(error, MemoryError):
        return ResourceError("out of memory")
    if isinstance(error, OSError):
        return _refusal(error) or _bug(error, arguments)
    return _bug(error, arguments)


def _refusal(error: OSError) -> MmedgeError | None:
    """What the system does not do, unless that is a bug of ours."""
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | Path) else None
    reason = (error.strerror or "the system refuses").lower()
    if error.errno in REFUSALS:
        return ResourceError(f"{reason} at `{path}`" if path else reason)
    if error.errno in MISTAKES and path:
        return UsageError(f"`{path}`: {reason}")
    return None


def _usage(error: CycloptsError) -> UsageError:
    """In our form: `Unknown option: --jso. Did you mean --json?` becomes a message and a hint."""
    text = str(error).partition(" Available commands:")[0].replace('"', "`")
    message, _, close = text.partition(" Did you mean ")
    command = " ".join(("mmedge", *(error.command_chain or ())))
    if isinstance(error, UnusedCliTokensError):
        message = f"`{command}` has no place for `{' '.join(error.unused_tokens or ())}`"
    hint = f"did you mean `{close.strip('`?')}`?" if close else f"`{command} --help` shows what it takes"
    return UsageError(message[:1].lower() + message[1:].rstrip(".").replace("\n", " "), hint=hint)


def _bug(error: BaseException, arguments: Sequence[str]) -> MmedgeError:
    first = next(iter(str(error).splitlines()), "")[:200]
    message = f"internal error: {type(error).__name__}{': ' if first else ''}{first}"
    try:
        report = _write_report(error, arguments)
    except OSError as refusal:
        return MmedgeError(message, hint=f"no report could be written ({refusal.strerror}): run it again with --debug")
    return MmedgeError(message, hint=f"this is a bug in mmedge: please report it with the file {report}")


def _write_report(error: BaseException, arguments: Sequence[str]) -> str:
    import tempfile

    about = (f"mmedge {__version__}", f"Python {platform.python_version()}", platform.platform(), repr([*arguments]))
    with tempfile.NamedTemporaryFile(
        "w", prefix="mmedge-report-", suffix=".txt", encoding="utf-8", errors="backslashreplace", delete=False
    ) as file:
        file.write("\n".join((*about, "", *traceback.format_exception(error))))
    return file.name


def _show(problem: MmedgeError, *, as_json: bool) -> None:
    if as_json and not _nobody_reads():
        fields = {"exit_code": problem.exit_code, "message": problem.message, "hint": problem.hint}
        print(json.dumps({"error": fields}), flush=True)
    if sys.stderr:  # else print would take standard output
        hint = f"\n\nhint: {problem.hint}" if problem.hint else ""
        print(f"error: {problem.message}{hint}", file=sys.stderr)


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose other end is closed."""
    poll = select.poll()
    poll.register(STDOUT, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _drop_output() -> int:
    """The interpreter flushes once more when it ends; a program that no longer reads is no error of ours."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    return SIGNALLED + signal.SIGPIPE


def _leave_at_once(code: int) -> NoReturn:
    """Whoever sent the signal does not wait for the seconds that Python needs to take torch apart.

    Every `with` block has ended by now; what was registered to run at exit runs here.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):  # nobody reads it, or it is closed
            stream.flush()
    os._exit(code)
