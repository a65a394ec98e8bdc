from pathlib import Path

import pytest

from mmedge.errors import UsageError
from mmedge.profiling.judging.rules import RATIO, load_rules

EXAMPLE = Path(__file__).parents[3] / "benchmarks" / "workloads" / "gate.toml"


@pytest.fixture
def rules(tmp_path):
    def load(text: str):
        (tmp_path / "gate.toml").write_text(text)
        return load_rules(tmp_path / "gate.toml")

    return load


def test_the_example_is_read():
    first, *_, last = load_rules(EXAMPLE).rule
    assert (first.stat, first.vs, first.bounds) == (RATIO, "baseline", (None, 1.05))
    assert (last.metric, last.noninferior, last.inconclusive) == ("agreement", 10, "warn")


def test_a_bound_is_in_the_unit_of_its_metric(rules):
    size, time, ratio = rules(
        '[[rule]]\nmetric = "peak_pss"\nmax = "900MiB"\n'
        '[[rule]]\nmetric = "answer_ms"\nmin = 1\nmax = "2 s"\n'
        '[[rule]]\nmetric = "answer_ms"\nvs = "baseline"\nmax = "105 %"\n'
    ).rule
    assert (size.bounds, time.bounds) == ((None, 900 << 20), (1, 2000))
    assert ratio.is_ratio and ratio.bounds == (None, pytest.approx(1.05))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "missing required field `rule`"),
        ("rule = []", "there is no rule"),
        ("[[rule]]\nmax = 1", r"missing required field `metric` - at `\$.rule\[0\]`"),
        ('[[rule]]\nmetric = "answer_ms"', "has no bound"),
        ('[[rule]]\nmetric = "answer_ms"\nmaximum = 1', "unknown field `maximum`"),
        ('[[rule]]\nmetric = "answer_ms"\nmax = "900MiB"', "`900MiB` is no time"),
        ('[[rule]]\nmetric = "answer_ms"\nvs = "baseline"\nmax = "40 ms"', "`40 ms` is no number"),
        ('[[rule]]\nmetric = "answer_ms"\nmax = nan', "not finite"),
        ('[[rule]]\nmetric = "answer_ms"\nmax = true', "got `bool`"),
        ('[[rule]]\nmetric = "answer_ms"\nmax = 1\nstat = "p50"', "invalid enum value 'p50'"),
        ('[[rule]]\nmetric = "answer_ms"\nmax = 1\nstat = "p99"\nvs = "baseline"', "`vs` goes with"),
        ('[[rule]]\nmetric = "vqa"\nmax = 1\nnoninferior = 1', "goes with no `max`"),
        ('[[rule]]\nmetric = "vqa"\nnoninferior = -1', "negative"),
        ('[[rule]]\nmetric = "vqa"\nnoninferior = 1\ninconclusive = "pass"', "invalid enum value 'pass'"),
        ('[[rule]\nmetric = "vqa"', "rules `"),
    ],
)
def test_a_mistake_is_named(rules, text, reason):
    with pytest.raises(UsageError, match=reason):
        rules(text)


def test_a_file_that_is_not_there_or_no_text_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load_rules(tmp_path / "none.toml")
    (tmp_path / "gate.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="rules `"):
        load_rules(tmp_path / "gate.toml")
