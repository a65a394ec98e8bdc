import pytest

from mmedge.profiling.numbers.quantities import kind_of, read_quantity, show_interval, show_quantity


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        ("answer_ms", "time"),
        ("decode_loop_ms", "time"),
        ("answer_mj", "energy"),
        ("peak_pss", "size"),
        ("peak_hwm", "size"),
        ("peak_gpu", "size"),
        ("bundle_bytes", "size"),
        ("tokens_per_s", "number"),
        ("vqa", "number"),
    ],
)
def test_the_name_of_a_metric_tells_what_it_counts(metric, kind):
    assert kind_of(metric) == kind


@pytest.mark.parametrize(
    ("written", "kind", "value"),
    [
        ("40 ms", "time", 40),
        ("40ms", "time", 40),
        (" 1.5 s ", "time", 1500),
        ("250us", "time", 0.25),
        ("40", "time", 40),
        (40, "time", 40),
        ("900MiB", "size", 900 << 20),
        ("1.2 GB", "size", 1.2e9),
        ("2 J", "energy", 2000),
        ("95 %", "number", 0.95),
        (1.05, "number", 1.05),
        (0, "size", 0),
    ],
)
def test_a_quantity_is_read_in_the_unit_of_its_kind(written, kind, value):
    assert read_quantity(written, kind) == pytest.approx(value)


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("900MiB", "time"),
        ("40 ms", "size"),
        ("40 ms", "number"),
        ("fast", "time"),
        ("", "time"),
        ("-1 ms", "time"),
        ("1e999", "time"),
        (float("nan"), "number"),
        (float("inf"), "number"),
        (-0.1, "number"),
        ("40 Ms", "time"),
    ],
)
def test_anything_else_is_refused(written, kind):
    with pytest.raises(ValueError, match=r"is no|negative or not finite"):
        read_quantity(written, kind)


def test_quantities_are_shown_with_units():
    assert show_quantity(40.25, "time") == "40.2 ms" and show_quantity(123456, "time") == "123 s"
    assert show_quantity(900 << 20, "size") == "900 MiB" and show_quantity(None, "size") == "-"
    assert show_interval(1.0, 2.0, "time") == "[1.00, 2.00 ms]" and show_interval(None, None, "time") == ""
    assert show_interval(None, 0.5, "number") == "[-, 0.5]"
