import pytest

from mmedge.commands._shown_answers import Printer, for_terminal
from mmedge.runtime.pipeline import Answer


@pytest.mark.parametrize("text", ["two\nlines\tof", "naïve 北京", "👩\u200d🚀"])
def test_a_terminal_is_shown_what_a_model_wrote(text):
    assert for_terminal(text) == text


def test_a_terminal_is_not_steered_by_what_a_model_wrote():
    assert for_terminal("a\x1b[2Jb\rc\x07d\x9be") == "a[2Jbcde"


def test_each_of_several_answers_begins_with_its_picture(capsys):
    """Also where one comes twice."""
    printer = Printer(json=False, several=True)
    for name in ("a.png", "a.png", "b.png"):
        printer.finish(name, Answer("a star", (1,), "stop", {}), {})
    assert capsys.readouterr().out == "a.png: a star\na.png: a star\nb.png: a star\n"
