"""Ceilings, shares and what is said about them."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from mmedge.profiling.layers import peaks
from mmedge.profiling.layers.layer_tables import roof_lines
from mmedge.profiling.layers.peaks import UNKNOWN_CACHE, key, last_level_cache, moving_s, peaks_of_all, with_threads
from mmedge.profiling.layers.roofline import Part, excesses, roof
from mmedge.profiling.run import Peaks

MIB = 1 << 20
RATES = {
    key("onnxruntime", "int8"): 500.0,
    key("onnxruntime", "int8", rest=True): 100.0,
}
PEAKS = Peaks(2, 18.0, RATES, 32 * MIB, read_gbs=24.0)


def part(quantized=0.0, rest=0.0, read=0.0, written=0.0, footprint=100 * MIB) -> Part:
    return Part("onnxruntime", "int8", int(quantized), int(rest), int(read), int(written), footprint)


def test_quantized_products_and_the_others_have_each_their_own_peak():
    found = roof(0, "encode", [part(quantized=100e9, rest=10e9)], 1000.0, PEAKS)
    assert found.ceiling_ms == pytest.approx(200 + 100)
    assert (found.share, found.bound) == (pytest.approx(0.3), "compute")


def test_a_stage_that_only_reads_is_bound_by_reading():
    found = roof(0, "decode_loop", [part(quantized=1e6, read=240e6)], 20.0, PEAKS)
    assert (found.ceiling_ms, found.bound) == (pytest.approx(10.0), "bandwidth")


def test_what_a_triad_reads_and_writes_takes_as_long_as_a_triad():
    assert moving_s(PEAKS, "onnxruntime", 8e9, 4e9) == pytest.approx(12 / 18)


def test_reading_is_never_slower_than_the_triad():
    noisy = Peaks(2, 18.0, {}, 32 * MIB, read_gbs=9.0)
    assert moving_s(noisy, "onnxruntime", 8e9, 4e9) == pytest.approx(12 / 18)
    assert moving_s(noisy, "onnxruntime", 18e9, 0) == pytest.approx(1.0)


def test_what_an_engine_copies_faster_than_the_triad_is_its_limit():
    copying = replace(PEAKS, copy_gbs={"onnxruntime": 22.0, "openvino": 9.0})
    assert moving_s(copying, "onnxruntime", 4e9, 4e9) == pytest.approx(8 / 22)
    assert moving_s(copying, "openvino", 8e9, 4e9) == moving_s(PEAKS, "openvino", 8e9, 4e9) == pytest.approx(12 / 18)


def test_graphs_of_a_stage_are_added_up():
    one, two = part(read=240e6), part(read=240e6)
    assert roof(0, "decode_loop", [one, two], 40.0, PEAKS).share == pytest.approx(0.5)


def test_what_fits_the_cache_is_told():
    assert roof(0, "prefill", [part(read=1e6, footprint=MIB)], 1.0, PEAKS).in_cache
    assert not roof(0, "prefill", [part(read=1e6)], 1.0, PEAKS).in_cache


def test_more_than_the_machine_can_do_is_flagged_unless_a_cache_explains_it():
    roofs = [
        roof(0, "encode", [part(read=240e6)], 9.0, PEAKS),
        roof(0, "prefill", [part(read=240e6)], 9.8, PEAKS),
        roof(0, "decode_loop", [part(read=240e6, footprint=MIB)], 1.0, PEAKS),
    ]
    (flag,) = excesses(roofs, ["small onnxruntime"])
    assert flag.text.startswith("small onnxruntime does `encode` at 111% of what the machine can do, which cannot be")
    assert "busier" in flag.text and "counted wrongly" in flag.text
    assert [each.valid for each in roofs] == [False, True, True]


def test_the_last_level_cache_is_the_largest(tmp_path: Path):
    for level, size in enumerate(("32K", "1024K", "32M")):
        (tmp_path / f"index{level}").mkdir()
        (tmp_path / f"index{level}" / "size").write_text(f"{size}\n")
    assert last_level_cache(tmp_path) == 32 * MIB


def test_where_the_system_does_not_tell_a_large_cache_is_assumed(tmp_path: Path):
    assert last_level_cache(tmp_path) == UNKNOWN_CACHE


def test_the_time_that_is_still_on_the_table_is_told():
    roofs = [roof(0, "encode", [part(read=240e6)], 15.0, PEAKS), roof(0, "prefill", [part(read=240e6)], 9.0, PEAKS)]
    lines = list(roof_lines(roofs, ["small onnxruntime"]))
    assert lines[1] == "small onnxruntime"
    assert lines[-1] == "still on the table: 5.0 of 24.0 ms of the first golden sample"
    assert lines[3].split()[:6] == ["encode", "0.000", "240.0", "15.000", "10.000", "67%"]
    assert lines[4].split()[5] == "-", "a share that cannot be is not shown"


@pytest.fixture
def quick_peaks(monkeypatch):
    """Peaks of this machine are not what is tested."""
    monkeypatch.setattr(peaks, "SIZE", 64)
    monkeypatch.setattr(peaks, "last_level_cache", lambda: 1 << 20)
    monkeypatch.setattr(peaks, "usable_cores", lambda: 2)


def test_peaks_are_those_of_each_number_of_threads(quick_peaks):
    int8, floats = ("onnxruntime", "int8", False), ("onnxruntime", "float32", False)
    found = peaks_of_all([(1, [floats]), (0, [int8]), (2, [floats])])
    assert (found.threads, [other.threads for other in found.others]) == (1, [2]), "0 is all cores"
    assert set(found.gemm_gflops) == {"onnxruntime float32", "onnxruntime float32 rest"}
    assert set(found.others[0].gemm_gflops) > set(found.gemm_gflops), "of both that have two threads"
    assert with_threads(found, 1) is found
    assert with_threads(found, 0) is with_threads(found, 2) is found.others[0]
