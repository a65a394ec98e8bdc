import signal

import pytest

from mmedge.commands._lines import CtrlC, EndOfTalk


@pytest.fixture
def ctrl_c():
    with CtrlC() as ctrl_c:
        yield ctrl_c


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_the_first_asks_an_answer_to_end_and_the_second_ends_all(ctrl_c):
    assert not ctrl_c.stopping()
    press()
    assert ctrl_c.stopping()
    with pytest.raises(EndOfTalk):
        press()


def test_a_line_being_typed_is_dropped_at_once(ctrl_c):
    ctrl_c.typing = True
    with pytest.raises(KeyboardInterrupt) as dropped:
        press()
    assert not isinstance(dropped.value, EndOfTalk)


def test_who_goes_on_may_stop_the_next_answer_too(ctrl_c):
    for _ in range(3):
        press()
        ctrl_c.calm()


def test_afterwards_ctrl_c_is_what_it_was_before():
    before = signal.getsignal(signal.SIGINT)
    with CtrlC():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
