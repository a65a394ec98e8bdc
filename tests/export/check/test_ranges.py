import pytest
from msgspec import json

from mmedge.errors import BundleError

ALL = ("10.3", "10.13", "10.16", "11.x")

SEEN = {"x": 5.0, "y": 7.0}


def half(body: str, constants: str = "") -> str:
    return f"float16[1,4] x => float16[1,4] y {f'<{constants}>' if constants else ''} {{ {body} }}"


PLANTED = {
    "a value that leaves float16": (half("y = Relu(x)"), {"y": 70_000.0}, {"ranges/overflow": ALL}),
    "a value that may leave it on the device": (half("y = Relu(x)"), {"y": 8_001.0}, {"ranges/large": ALL}),
    "a large value that is cast": (
        "float[1,4] x => float[1,4] y { h = Cast<to=10>(x) r = Relu(h) y = Cast<to=1>(r) }",
        {"x": 9_000.0, "y": 1.0},
        {"ranges/large": ALL},
    ),
    "Softmax of unknown values": (half("y = Softmax(x)"), {"y": 1.0}, {"ranges/sums": ALL}),
    "a spelled square": (half("y = Pow(x, two)", "float16 two = {2}"), SEEN, {"ranges/sums": ALL}),
    "a spelled exponential": (half("y = Exp(x)"), SEEN, {"ranges/sums": ALL}),
    "angles": (half("y = Sin(x)"), SEEN, {"ranges/angles": ALL}),
    "a mask of the least float16": (half("y = Add(x, m)", "float16 m = {-65504}"), SEEN, {"ranges/mask": ALL}),
    "a mask of minus infinity": (half("y = Add(x, m)", "float16 m = {-inf}"), SEEN, {"ranges/mask": ALL}),
    "a float32 mask that is cast": (
        half("h = Cast<to=10>(m) y = Add(x, h)", "float m = {-3.4e38}"),
        SEEN,
        {"ranges/constant": ALL},
    ),
    "a constant that was cut off": (half("y = Mul(x, c)", "float16 c = {65504}"), SEEN, {"ranges/constant": ALL}),
    "an epsilon that vanishes": (half("y = Add(x, e)", "float16 e = {1e-7}"), SEEN, {"ranges/vanishing": ALL}),
}


@pytest.mark.parametrize("name", PLANTED)
def test_found_for_this_reason(name, rejected):
    text, ranges, expected = PLANTED[name]
    assert rejected(text, ranges=ranges, precision="float16") == expected


CLEAN = {
    "values far from the end": (half("y = Relu(x)"), {"y": 7_999.0}),
    "Softmax of small values": (half("y = Softmax(x)"), SEEN),
    "a mask of -10,000": (half("y = Add(x, m)", "float16 m = {-10000}"), SEEN),
    "an island in float32": (
        half("f = Cast<to=1>(x) e = Exp(f) y = Cast<to=10>(e)"),
        {"x": 5.0, "e": 100.0},
    ),
    "large values in float32": ("float[1,4] x => float[1,4] y { y = Relu(x) }", {"y": 1e6}),
}


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_found_in_a_clean_graph(name, check):
    text, ranges = CLEAN[name]
    assert check(text, ranges=ranges, precision="float16").found == ()


def test_a_float16_graph_without_recorded_ranges_is_noted(check):
    (found,) = check(half("y = Relu(x)"), precision="float16").found
    assert (found.check, found.severity) == ("ranges/unknown", "note")


def test_values_that_were_not_recorded_are_counted(check):
    (found,) = check(half("a = Relu(x) y = Relu(a)"), ranges={"y": 1.0}, precision="float16").found
    assert found.severity == "note" and "1 of 2" in found.message


def test_a_value_that_was_recorded_as_not_finite_overflows(check):
    # JSON has no infinity: what is beyond float32 is written as a number that large.
    (found,) = check(half("y = Relu(x)"), ranges={"y": 1e300}, precision="float16").found
    assert found.check == "ranges/overflow"


def test_a_damaged_list_of_ranges_is_a_bad_bundle(check, tmp_path):
    (tmp_path / "ranges").mkdir()
    (tmp_path / "ranges" / "part.json").write_bytes(json.encode({"y": "large"}))
    with pytest.raises(BundleError, match="is not a list of ranges"):
        check(half("y = Relu(x)"), precision="float16")


def test_the_headroom_tells_the_largest_value_and_where_it_is_made(check):
    (headroom,) = check(half("a = Relu(x) y = Abs(a)"), ranges={"a": 12.0, "y": 3.0}, precision="float16").float16
    assert (headroom.values, headroom.recorded, headroom.largest, headroom.tensor) == (2, 2, 12.0, "a")


MASKED = {
    "cast": "b = Cast<to=10>(attention_bias) z = Add(x, b) y = Softmax(z)",
    "added from the left": "b = Cast<to=10>(attention_bias) z = Add(b, x) y = Softmax(z)",
    "moved": "b = Cast<to=10>(attention_bias) r = Identity(b) z = Add(x, r) m = Identity(z) y = Softmax(m)",
    "in float32": "f = Cast<to=1>(x) s = Add(f, attention_bias) z = Cast<to=10>(s) y = Softmax(z)",
}


@pytest.mark.parametrize("name", MASKED)
def test_scores_with_a_mask_on_them_do_not_hide_the_largest_value(name, check):
    text = f"float16[1,4] x, float[1,4] attention_bias => float16[1,4] y {{ {MASKED[name]} }}"
    ranges = {"x": 50.0, "attention_bias": 6_000.0, "s": 6_041.0, "z": 6_041.0, "y": 1.0}
    (headroom,) = check(text, ranges=ranges, precision="float16").float16
    assert (headroom.largest, headroom.tensor) == (1.0, "y")


def test_masked_scores_that_leave_float16_are_found_all_the_same(check):
    text = f"float16[1,4] x, float[1,4] attention_bias => float16[1,4] y {{ {MASKED['cast']} }}"
    found = check(text, ranges={"x": 50.0, "z": 8_001.0, "y": 1.0}, precision="float16").of("error")
    assert [each.check for each in found] == ["ranges/large"]


def test_a_sum_without_the_mask_counts(check):
    (headroom,) = check(half("y = Add(x, x)"), ranges={"x": 5.0, "y": 10.0}, precision="float16").float16
    assert (headroom.largest, headroom.tensor) == (10.0, "y")


def test_a_float32_graph_has_no_headroom_to_tell(check):
    assert check("float[1,4] x => float[1,4] y { y = Relu(x) }", ranges={"y": 3.0}).float16 == ()


def test_a_value_that_is_only_moved_has_the_range_of_what_was_moved(check):
    text = half("t = Transpose<perm=[1,0]>(x) y = Transpose<perm=[1,0]>(t)")
    assert check(text, ranges={"x": 9_000.0}, precision="float16").of("error")[0].check == "ranges/large"
