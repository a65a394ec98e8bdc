"""Of all who want to write one bundle at the same time, exactly one does."""

import fcntl
import itertools
import os
import signal
import sys
import time

import pytest

from mmedge import signals
from mmedge.core.bundle import open_bundle
from mmedge.core.lock import locked
from mmedge.core.writing import new_bundle
from mmedge.errors import BusyError, ResourceError, UsageError

STARTS = 50


@pytest.fixture
def nobody(start, wait):
    """The number of a process that is gone."""
    wait(pid := start(lambda: None))
    return pid


@pytest.mark.timeout(60)
def test_of_fifty_simultaneous_starts_one_writes_and_the_others_name_it(tmp_path, workshop, start):
    target = tmp_path / "out"
    begin, go = os.pipe()
    end, finish = os.pipe()

    def task():
        os.close(go)
        os.close(finish)
        os.read(begin, 1)  # returns when the last writing end of the pipe is closed
        try:
            with new_bundle(target) as draft:
                (tmp_path / "winner").write_text(str(os.getpid()))
                os.read(end, 1)
                workshop.put_files(draft.folder)
                draft.finish(workshop.manifest)
        except BusyError as error:
            (tmp_path / f"loser-{os.getpid()}").write_text(error.message)
            raise

    children = [start(task) for _ in range(STARTS)]
    os.close(go)
    losers = dict(os.waitpid(-1, 0) for _ in range(STARTS - 1))  # the winner waits for them
    os.close(finish)
    (winner,) = set(children) - losers.keys()
    assert os.waitstatus_to_exitcode(os.waitpid(winner, 0)[1]) == 0
    assert {os.waitstatus_to_exitcode(status) for status in losers.values()} == {BusyError.exit_code}
    assert (tmp_path / "winner").read_text() == str(winner)
    for loser in losers:
        assert (tmp_path / f"loser-{loser}").read_text() == f"`{target}` is being written by process {winner}"
    open_bundle(target).verify()
    assert not list(tmp_path.glob("out.*"))
    os.close(begin)
    os.close(end)


@pytest.mark.timeout(60)
def test_no_two_ever_hold_the_lock_although_it_is_removed_each_time(tmp_path, start, wait):
    counter = tmp_path / "counter"
    counter.write_text("0")

    def task():
        done = 0
        while done < 100:
            try:
                with locked(tmp_path / "out.lock", tmp_path / "out"):
                    counter.write_text(str(int(counter.read_text()) + 1))
                    done += 1
            except BusyError:
                time.sleep(0.001)

    assert [wait(child) for child in [start(task) for _ in range(4)]] == [0] * 4
    assert counter.read_text() == "400"


def test_the_lock_says_who_holds_it_and_goes_away(tmp_path):
    with locked(tmp_path / "lock", tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()} {os.uname().nodename}\n"
    assert not (tmp_path / "lock").exists()


def test_the_lock_of_a_process_that_was_killed_is_taken_over(tmp_path, workshop, in_child):
    def die():
        with new_bundle(tmp_path / "out"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(die) == -signal.SIGKILL
    assert (tmp_path / "out.lock").exists()
    workshop.write(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_a_stale_lock_file_is_taken_over_whatever_it_says(tmp_path, nobody):
    for content in (b"", f"{nobody} {os.uname().nodename}\n".encode(), b"\xff\0garbage", b"9" * 1000):
        (tmp_path / "lock").write_bytes(content)
        with locked(tmp_path / "lock", tmp_path):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()} {os.uname().nodename}\n"
        assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize(
    ("signature", "named"),
    [
        ("123 elsewhere\n", "process 123 on elsewhere"),
        ("", "another process"),
        ("{nobody} {host}\n", "another process"),
    ],
)
def test_a_holder_is_named_if_it_can_be(signature, named, tmp_path, nobody):
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(signature.format(nobody=nobody, host=os.uname().nodename))
        file.flush()
        with pytest.raises(BusyError, match=f"is being written by {named}$"), locked(tmp_path / "lock", tmp_path):
            pass


def test_the_lock_is_free_after_an_error_even_while_a_forked_child_lives(tmp_path, start, wait):
    begin, go = os.pipe()
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", tmp_path):
        child = start(lambda: (os.close(go), os.read(begin, 1)))
        raise ZeroDivisionError
    with locked(tmp_path / "lock", tmp_path):
        pass
    os.close(go)
    os.close(begin)
    assert wait(child) == 0


def test_a_second_writer_in_the_same_process_is_refused_too(tmp_path):
    with new_bundle(tmp_path / "out"), pytest.raises(BusyError, match=str(os.getpid())), new_bundle(tmp_path / "out"):
        pass


@pytest.mark.parametrize("spoil", [os.mkdir, lambda path: os.symlink("elsewhere", path)], ids=["folder", "link"])
def test_a_lock_that_cannot_be_a_file_is_refused(spoil, tmp_path):
    spoil(tmp_path / "out.lock")
    with pytest.raises(ResourceError, match=r"cannot write in .*out\.lock"), new_bundle(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == ["out.lock"]


def test_bundles_beside_each_other_do_not_wait_for_each_other(tmp_path, workshop):
    with new_bundle(tmp_path / "a"):
        workshop.write(tmp_path / "b")
    with pytest.raises(UsageError, match="exists already"):
        workshop.write(tmp_path / "b")


@pytest.fixture
def signals_raise():
    """As in the command line; what the tests' own process does with them comes back."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield signals.raise_on_signals
    for number, handler in before.items():
        signal.signal(number, handler)
    signals.stopped.clear()


def test_a_signal_at_any_instruction_leaves_no_lock(tmp_path, signals_raise):
    def come(frame, event, _):
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        if steps == moment:
            signal.raise_signal(signal.SIGINT)  # waits where signals are held back
        return come

    def take_and_give_back():
        with locked(tmp_path / "lock", tmp_path):
            pass

    for moment in itertools.count(1):
        signals_raise()
        steps = 0
        ours = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks before tracing begins whether any frame asks for it
        sys.settrace(come)
        try:
            take_and_give_back()
        except signals.Stopped as stopped:
            stopped.with_traceback(None)
        finally:
            sys.settrace(ours)
        assert os.listdir(tmp_path) == [], f"instruction {moment}"
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(), f"instruction {moment}"
        if steps < moment:
            break
    assert moment > 100
