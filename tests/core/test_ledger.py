"""Who notes seconds, and who hears of them."""

import time

import pytest

from mmedge.core.ledger import Ledger, listening, spent, tell_compiled


@pytest.fixture(autouse=True)
def ticking(monkeypatch):
    """Every look at the clock takes a second."""
    moments = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(moments)))


def test_nobody_listens_and_nothing_is_noted():
    with spent("verify"):
        tell_compiled(found=True)


def test_seconds_add_up_by_name():
    with listening(book := Ledger()):
        for name in ("verify", "compile", "verify"):
            with spent(name):
                pass
    assert book.seconds == {"verify": 2.0, "compile": 1.0}


def test_what_is_spent_inside_something_else_counts_once():
    with listening(book := Ledger()), spent("compile"), spent("verify"):
        pass
    assert book.seconds == {"compile": 1.0}


def test_a_failure_is_noted_too():
    with listening(book := Ledger()), pytest.raises(ValueError), spent("verify"):
        raise ValueError
    assert book.seconds == {"verify": 1.0}


@pytest.mark.parametrize(
    ("found", "said"), [([], "none"), ([True, True], "hit"), ([True, False], "miss"), ([False, True], "miss")]
)
def test_one_graph_that_must_be_compiled_makes_it_a_miss(found, said):
    with listening(book := Ledger()):
        for each in found:
            tell_compiled(each)
    assert book.compiled == said
