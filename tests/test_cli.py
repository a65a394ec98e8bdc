import errno
import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmedge import __version__, cli, errors
from mmedge.errors import BundleError, MmedgeError, QualityError
from mmedge.signals import Stopped

MMEDGE = (sys.executable, "-m", "mmedge")


def mmedge(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MMEDGE, *arguments], capture_output=True, text=True, timeout=60, **options)


@pytest.fixture
def command(monkeypatch):
    """Register a function as the command `work`; stands for any command that meets the given end."""

    def register(function):
        monkeypatch.setattr(cli, "COMMANDS", ("work",))
        monkeypatch.setattr(cli, "import_module", lambda _: SimpleNamespace(work=function))

    return register


def raising(error: BaseException):
    def work(*, json: bool = False) -> None:
        raise error

    return work


def test_help_lists_every_command_with_what_it_does(capsys):
    assert cli.run(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in cli.COMMANDS:
        summary = getattr(import_module(f"mmedge.commands.{name}"), name).__doc__.splitlines()[0]
        assert f" {name} {summary} " in shown


def test_help_lists_the_exit_code_of_every_error(capsys):
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MmedgeError))
    assert {kind.exit_code for kind in kinds} <= cli.EXIT_CODES.keys()
    cli.run(["--help"])
    shown = capsys.readouterr().out
    assert all(f"  {code:>3}  {meaning}\n" in shown for code, meaning in cli.EXIT_CODES.items())


def test_the_help_of_a_command_leaves_the_exit_codes_to_the_main_page(capsys):
    assert cli.run(["targets", "--help"]) == 0
    assert "Exit codes" not in capsys.readouterr().out


def test_version(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["targest"]], ids=["help", "mistyped"])
def test_listing_the_commands_imports_no_numpy(arguments):
    code = f"import sys; from mmedge.cli import run; run({arguments}); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ("targest", "unknown command `targest`", "did you mean `targets`?"),
        ("--hepl", "unknown command `--hepl`", "`mmedge --help` shows what it takes"),
        ("targets --jsn", "unknown option: --jsn", "did you mean `--json`?"),
        ("targets x y", "`mmedge targets` has no place for `x y`", "`mmedge targets --help` shows what it takes"),
    ],
)
def test_a_usage_error_names_what_was_typed_and_exits_2(arguments, message, hint, capsys):
    assert cli.run(arguments.split()) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n\nhint: {hint}\n")


def test_the_process_exits_with_the_code():
    done = mmedge("targest")
    assert (done.returncode, done.stdout, done.stderr[:24]) == (2, "", "error: unknown command `")


def test_an_error_is_its_message_its_hint_and_its_exit_code(command, capsys):
    command(raising(BundleError("`model.bundle` lacks `manifest.json`", hint="export it again")))
    assert cli.run(["work"]) == 4
    assert capsys.readouterr() == ("", "error: `model.bundle` lacks `manifest.json`\n\nhint: export it again\n")


def test_an_error_without_a_hint_is_one_line(command, capsys):
    command(raising(QualityError("cosine 0.9 below 0.99")))
    assert cli.run(["work"]) == 7
    assert capsys.readouterr().err == "error: cosine 0.9 below 0.99\n"


def test_with_json_an_error_is_also_an_object_on_stdout(command, capsys):
    command(raising(QualityError("cosine 0.9 below 0.99")))
    assert cli.run(["work", "--json"]) == 7
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"error": {"exit_code": 7, "message": "cosine 0.9 below 0.99", "hint": None}}
    assert shown.err == "error: cosine 0.9 below 0.99\n"


def test_what_follows_two_dashes_is_no_option_of_ours(command, capsys):
    def work(question: str) -> None:
        raise QualityError(question)

    command(work)
    assert cli.run(["work", "--", "--json"]) == 7
    assert capsys.readouterr() == ("", "error: --json\n")


def test_a_command_may_answer_with_an_exit_code(command):
    command(lambda: 7)
    assert cli.run(["work"]) == 7


def test_a_bug_is_one_line_and_a_report_file(command, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    command(raising(ValueError("first line\nsecond line")))
    assert cli.run(["work"]) == 1
    report = next(tmp_path.iterdir())
    hint = f"this is a bug in mmedge: please report it with the file {report}"
    assert capsys.readouterr().err == f"error: internal error: ValueError: first line\n\nhint: {hint}\n"
    assert "Traceback" in report.read_text() and "second line" in report.read_text()


def test_a_bug_where_no_report_can_be_written_points_to_debug(command, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    command(raising(ValueError("odd")))
    assert cli.run(["work"]) == 1
    assert "run it again with --debug" in capsys.readouterr().err


def test_debug_shows_where_an_error_comes_from(command, capsys):
    command(raising(BundleError("broken")))
    assert cli.run(["work", "--debug"]) == 4
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and shown.endswith("error: broken\n")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device", "out/graph.onnx"), MemoryError()])
def test_a_full_disk_or_memory_exits_6(command, capsys, error):
    command(raising(error))
    assert cli.run(["work"]) == 6
    assert capsys.readouterr().err in ("error: no space left on device at `out/graph.onnx`\n", "error: out of memory\n")


@pytest.mark.parametrize("number", sorted(cli.MISTAKES))
def test_a_wrong_path_exits_2_and_is_named(command, capsys, number):
    command(raising(OSError(number, os.strerror(number), "some/file")))
    assert cli.run(["work"]) == 2
    assert capsys.readouterr().err == f"error: `some/file`: {os.strerror(number).lower()}\n"


def test_a_full_disk_behind_stdout_exits_6():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*MMEDGE, "targets"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (6, "error: no space left on device\n")


@pytest.mark.parametrize("arguments", ["targets", "targets --json", "targets --json --nonsense"])
def test_a_reader_that_leaves_is_no_error(arguments):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*MMEDGE, *arguments.split()], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    usage = "--nonsense" in arguments
    assert (done.returncode, "Traceback" in done.stderr, bool(done.stderr)) == (2 if usage else 141, False, usage)


def test_a_broken_pipe_that_is_not_stdout_is_an_error(command, capsys):
    command(raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert cli.run(["work"]) == 1
    assert "BrokenPipeError" in capsys.readouterr().err


@pytest.mark.parametrize("stream", ["1", "2"])
def test_works_with_a_closed_stream(stream):
    done = subprocess.run(
        f"exec {sys.executable} -m mmedge targest {stream}>&-", shell=True, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")


WAITING_COMMAND = """
import atexit, sys, threading, time
from pathlib import Path
from types import SimpleNamespace
from mmedge import cli

def work(marker: Path) -> None:
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(0.2)
        marker.write_text("cleaned")

cli.COMMANDS = ("work",)
cli.import_module = lambda _: SimpleNamespace(work=work)
atexit.register(print, "left")
threading.Thread(target=time.sleep, args=(60,)).start()
sys.exit(cli.main())
"""


def start_waiting(marker: Path, hang_up: signal.Handlers = signal.SIG_DFL) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WAITING_COMMAND, "work", str(marker)]
    before = signal.signal(signal.SIGHUP, hang_up)  # the child inherits it, and nohup may have started this process
    try:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("number", "times", "code"),
    [(signal.SIGINT, 1, 130), (signal.SIGINT, 2, 130), (signal.SIGTERM, 1, 143), (signal.SIGHUP, 1, 129)],
)
def test_a_signal_ends_the_command_after_it_cleaned_up_and_waits_for_no_thread(tmp_path, number, times, code):
    process = start_waiting(tmp_path / "marker")
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.05)
    shown = process.communicate(timeout=20)
    assert (process.returncode, *shown) == (code, "left\n", f"error: stopped by {number.name}\n")
    assert (tmp_path / "marker").read_text() == "cleaned"


def test_a_hang_up_that_was_switched_off_stays_off(tmp_path):
    process = start_waiting(tmp_path / "marker", hang_up=signal.SIG_IGN)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_targets_are_shown_in_80_columns(capsys):
    assert cli.run(["targets"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert all(word in shown for word in ("raspberry-pi-5", "(jetson)", "tensorrt", "int8-weights", "48 GiB"))


def test_targets_as_json_tell_everything(capsys):
    assert cli.run(["targets", "--json"]) == 0
    known = {target["name"]: target for target in json.loads(capsys.readouterr().out)}
    assert known["jetson-orin-nano"]["aliases"] == ["jetson"]
    assert known["cpu"]["presets"]["int8"] == {"tower": "int8", "decode": "int8-weights"}


def test_recipes_are_listed(capsys):
    assert cli.run(["recipes", "--json"]) == 0
    names = {recipe["name"] for recipe in json.loads(capsys.readouterr().out)}
    assert cli.run(["recipes"]) == 0
    shown = capsys.readouterr().out
    assert names and all(name in shown for name in names)


def test_a_stop_that_other_code_turned_into_its_own_error_is_still_a_stop(monkeypatch, capsys):
    monkeypatch.setattr(cli, "stopped", [Stopped(signal.SIGTERM)])
    assert cli.run(["targets", "--no-such-option"]) == 143
    assert "stopped by SIGTERM" in capsys.readouterr().err
