import pytest

from mmedge.profiling.showing.html.text import clean, escape, interval, number, percent, short


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234567, "1,234,567"),
        (1234.5, "1,234"),
        (123.45, "123.5"),
        (12.345, "12.35"),
        (0.01234, "0.012"),
        (0.00001234, "1.2e-05"),
        (0.0, "0.000"),
        (-3.14159, "-3.14"),
    ],
)
def test_numbers_have_the_digits_that_count(value, shown):
    assert number(value) == shown


def test_what_is_not_known_is_a_dash_and_never_zero():
    assert number(None) == percent(None) == "\N{EN DASH}"
    assert interval(None, 1.0) == ""


def test_an_interval_stays_on_one_line():
    assert interval(1.0, 2.0) == "[1.00,\N{NO-BREAK SPACE}2.00]"


def test_characters_that_hide_or_turn_text_are_shown_as_such():
    assert clean("a\x00b\u202ec\ud800d\ne\u2028f") == "a\ufffdb\ufffdc\ufffdd e f"
    assert clean("名前 \U0001f469\u200d\U0001f680 é") == "名前 \U0001f469\u200d\U0001f680 é"


def test_markup_is_text_in_tags_and_in_quotes():
    assert escape("<a href='x'>&\"") == "&lt;a href=&#x27;x&#x27;&gt;&amp;&quot;"


def test_long_names_end_in_dots():
    assert short("a" * 50, 10) == "a" * 9 + "…" and short("a" * 10, 10) == "a" * 10
