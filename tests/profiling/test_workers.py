import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmedge.errors import BackendError, BundleError, InputError, ResourceError
from mmedge.profiling.messages import Ask, Load
from mmedge.profiling.workers import running


@pytest.fixture
def ask(inputs) -> Ask:
    return Ask("caption", inputs.items[0].file, None)


def load_of(candidate) -> Load:
    return Load(candidate.bundle, None, 2)


def pid_of(candidate) -> int:
    return int(Path(f"{candidate.bundle}.pid").read_text())


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def ticks_of(pid: int) -> int:
    """Processor time that a process has used."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


@pytest.fixture
def loaded(stand_in):
    """A worker with a bundle open."""

    @contextmanager
    def start(candidate):
        with running(candidate.name, stand_in) as worker:
            worker.wait_until_started()
            worker.load(load_of(candidate))
            yield worker

    return start


def test_a_worker_answers_with_its_own_times(candidate, loaded, ask):
    made = candidate(stages={"encode": 20.0, "prefill": 5.0, "decode_loop": 15.0}, tokens=3, text="a cat")
    with loaded(made) as worker:
        answer = worker.ask(ask)
    stages = {"encode": 20_000_000, "prefill": 5_000_000, "decode_loop": 15_000_000}
    assert (answer.text, answer.tokens, answer.stages_ns) == ("a cat", (0, 1, 2), stages)
    assert (answer.answer_ns, *answer.token_ns) == (40_000_000, 30_000_000, 35_000_000, 40_000_000)


def test_what_engines_print_does_not_disturb_the_conversation(candidate, loaded, ask, capfd):
    with loaded(candidate()) as worker:
        worker.ask(ask)
    assert capfd.readouterr() == ("", "")


def test_a_worker_says_what_golden_samples_say(candidate, loaded):
    with loaded(candidate(failed=["golden/0: decoder"])) as worker:
        assert worker.verify().failed == ("golden/0: decoder",)


@pytest.mark.parametrize("kind", [BundleError, BackendError, InputError, ResourceError])
def test_an_error_of_a_worker_keeps_its_kind_and_hint_and_says_whose_it_is(kind, candidate, loaded):
    with pytest.raises(kind, match=r"^first: cannot go on$") as caught, loaded(candidate(error=kind.__name__)):
        pass
    assert caught.value.hint == "do something"


@pytest.mark.parametrize(
    ("how", "end"),
    [(3, "ended with exit code 3"), ("SIGSEGV", "was ended by SIGSEGV"), ("SIGKILL", "was ended by SIGKILL")],
)
def test_a_worker_that_dies_is_told_with_its_last_words(how, end, candidate, loaded, ask):
    message = f"the worker of `first` {end}: the engine: something terrible"
    with pytest.raises(BackendError, match=f"^{message}$"), loaded(candidate(die=how)) as worker:
        worker.ask(ask)


def test_an_exception_that_is_no_error_of_ours_ends_the_worker(candidate, loaded):
    made = candidate()
    Path(made.bundle).write_text("not JSON")
    with pytest.raises(BackendError, match=r"exit code 1: json\.decoder\.JSONDecodeError"), loaded(made):
        pass


def test_a_worker_that_cannot_start_is_told(tmp_path):
    with pytest.raises(BackendError, match="No such file"), running("x", (sys.executable, "/no/such.py")) as worker:
        worker.wait_until_started()


def test_a_worker_that_does_not_answer_is_not_waited_for_without_end(candidate, loaded, ask):
    with pytest.raises(ResourceError, match="first had not answered after 0 s"), loaded(candidate(hang=True)) as worker:
        worker.ask(ask, patience_s=0.2)


def test_a_stopped_worker_uses_no_processor_time_and_answers_when_it_is_woken(candidate, loaded, ask):
    made = candidate()
    with loaded(made) as worker:
        worker.pause()
        assert state_of(pid_of(made)) == "T"
        before = ticks_of(pid_of(made))
        time.sleep(0.05)
        assert ticks_of(pid_of(made)) == before
        with worker.awake():
            assert worker.ask(ask).text == "a picture"
        assert state_of(pid_of(made)) == "T"


@pytest.mark.parametrize("paused", [False, True])
def test_nothing_is_left_of_a_worker_and_what_it_started(paused, candidate, loaded, wait_for_end):
    made = candidate(child=True)
    with pytest.raises(KeyboardInterrupt), loaded(made) as worker:
        if paused:
            worker.pause()
        raise KeyboardInterrupt
    with pytest.raises(ProcessLookupError):  # a zombie would still be there
        os.kill(pid_of(made), 0)
    wait_for_end(int(Path(f"{made.bundle}.child").read_text()))


def test_a_stopped_worker_ends_when_the_profiler_is_killed(candidate, stand_in, wait_for_end):
    made = candidate()
    program = f"""
import os, signal
from mmedge.profiling.messages import Load
from mmedge.profiling.workers import running

with running("first", {stand_in!r}) as worker:
    worker.wait_until_started()
    worker.load(Load({made.bundle!r}, None, 0))
    worker.pause()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    wait_for_end(pid_of(made))


def test_a_worker_imports_nothing_from_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "msgspec.py").write_text("raise SystemExit('imported from the working folder')")
    monkeypatch.chdir(tmp_path)
    with running("first") as worker:
        worker.wait_until_started()
