import pytest

from mmedge.commands._shown_answers import for_terminal


@pytest.mark.parametrize("text", ["two\nlines\tof", "naïve 北京", "👩\u200d🚀"])
def test_a_terminal_is_shown_what_a_model_wrote(text):
    assert for_terminal(text) == text


def test_a_terminal_is_not_steered_by_what_a_model_wrote():
    assert for_terminal("a\x1b[2Jb\rc\x07d\x9be") == "a[2Jbcde"
