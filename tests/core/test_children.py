"""Processes of our own, and what they import."""

import os
import sys

import pytest

from mmedge.core import children
from mmedge.core.children import started


@pytest.fixture
def as_before_3_11(monkeypatch):
    """Python's own way of leaving the current folder out, which newer versions have, is off."""
    was = children._environment

    def environment():
        return {name: value for name, value in was().items() if name != "PYTHONSAFEPATH"}

    monkeypatch.setattr(children, "_environment", environment)


@pytest.mark.parametrize("stray", ["msgspec", "json", "runpy", "mmedge"])
def test_a_module_is_not_taken_from_the_current_folder(stray, as_before_3_11, tmp_path, monkeypatch):
    (tmp_path / f"{stray}.py").write_text("raise SystemExit('the current folder was searched')")
    monkeypatch.chdir(tmp_path)
    with started((sys.executable, "-m", "mmedge.runtime.building")) as child:
        child.orders.close()
        _, end = child.death()
    assert "Input data was truncated" in end  # it got as far as reading its order, of which there is none


def test_a_module_gets_its_arguments_and_runs_as_the_main_one(tmp_path, monkeypatch):
    (tmp_path / "shows.py").write_text("import sys; print(__name__, *sys.argv[1:])")
    monkeypatch.syspath_prepend(str(tmp_path))
    with started((sys.executable, "-m", "shows", "one")) as child:
        assert child.replies.read().decode().split() == ["__main__", "one", str(os.getpid())]


def test_a_process_can_be_started_through_another_that_makes_way_for_it(tmp_path, monkeypatch):
    (tmp_path / "tells.py").write_text("import os; print(os.getpid(), os.environ['TOLD'])")
    monkeypatch.syspath_prepend(str(tmp_path))
    with started((sys.executable, "-m", "tells"), through=("env", "TOLD=so")) as child:
        assert child.replies.read().decode().split() == [str(child.pid), "so"]


def test_any_other_command_is_left_as_it_is():
    with started(("/bin/echo", "hello")) as child:
        assert child.replies.read().decode().split() == ["hello", str(os.getpid())]
    assert children._away_from_here(("/bin/true",)) == ["/bin/true"]
