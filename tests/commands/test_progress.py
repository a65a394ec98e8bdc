import sys

import pytest

from mmedge.commands._progress import Bar, drawn


@pytest.fixture
def bar_of_3(capsys, monkeypatch):
    """``bar_of_3(*seconds)`` is a bar at a terminal of 80 columns; the clock shows these."""

    def start(*seconds: float) -> Bar:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", "80")
        return Bar(3, now=iter(seconds).__next__)

    return start


def test_a_bar_tells_what_is_done_and_how_long_the_rest_takes():
    assert drawn(6, 24, 30.0) == "[######..................] 6/24, 1:30 left"


def test_nothing_is_shown_of_short_work(bar_of_3, capsys):
    with bar_of_3(0.0, 0.5, 1.0, 1.5) as bar:
        for name in ("a.png", "b.png", "c.png"):
            bar.step(name)
    assert capsys.readouterr().err == ""


def test_a_bar_is_shown_of_longer_work_and_gone_at_the_end(bar_of_3, capsys):
    with bar_of_3(0.0, 3.0) as bar:
        bar.step("a.png")
        assert capsys.readouterr().err.endswith("1/3, 0:06 left  a.png")
    assert capsys.readouterr().err.endswith("\r\x1b[K")


def test_a_bar_fits_the_terminal(bar_of_3, capsys):
    with bar_of_3(0.0, 3.0) as bar:
        bar.step("a" * 300)
        assert len(capsys.readouterr().err) == 79


def test_nothing_is_shown_where_standard_error_is_no_terminal(capsys):
    with Bar(3, now=iter((0.0, 3.0)).__next__) as bar:
        bar.step("a.png")
    assert capsys.readouterr().err == ""
