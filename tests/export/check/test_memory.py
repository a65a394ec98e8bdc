import os

import pytest
from msgspec.structs import replace

from mmedge.core.ports import CacheShape, Port, Span
from mmedge.export.check.findings import MemoryPlan, Sum
from mmedge.export.check.memory import check_memory
from mmedge.export.decoder import MIB

KIB = 1024


@pytest.fixture
def small(device):
    """A target of which a few MiB more or less decide."""
    return replace(device, memory_mb=1000, options={"workspace_mb": 100})


def parts(sums: tuple[Sum, ...]) -> dict[str, float]:
    return {part.what: part.mib for part in sums}


CHAIN = "float[256,1024] x => float[256,1024] y { a = Relu(x) b = Relu(a) y = Relu(b) }"
"""Each value takes 1 MiB, and two are alive at a time."""


def test_values_are_counted_while_they_are_alive(check):
    assert parts(check(CHAIN).memory.run)["values of part"] == 2


def test_a_value_that_is_read_late_is_alive_until_then(check):
    text = "float[256,1024] x => float[256,1024] y { a = Relu(x) b = Relu(a) c = Relu(b) y = Add(a, c) }"
    assert parts(check(text).memory.run)["values of part"] == 3


def test_float16_values_take_half(check):
    assert parts(check(CHAIN.replace("float[", "float16["), ranges={}).memory.run)["values of part"] == 1


def test_constants_are_weights_and_no_values(check):
    text = "float[256,1024] x => float[256,1024] y <float[1024] c = ones> { y = Add(x, c) }"
    assert parts(check(text).memory.run)["values of part"] == 1


def test_sizes_that_vary_are_taken_at_their_largest_in_each_profile(check):
    text = "float[length,1024] x => float[length,1024] y { a = Relu(x) y = Relu(a) }"
    profiles = {"length": Span(1, 1, 1)}, {"length": Span(1, 64, 256)}
    run = check(text, profiles=profiles).memory.run
    assert parts(run)["values of part, profile 1"] == 2 / 256
    assert parts(run)["values of part, profile 2"] == 2
    assert "at length 256" in next(part.how for part in run if part.what.endswith("profile 2"))


def test_what_only_the_engine_could_tell_has_a_stated_margin(check):
    (margin,) = (part for part in check(CHAIN).memory.run if part.what.startswith("margin"))
    assert (margin.what, margin.mib) == ("margin of part", pytest.approx(0.2))
    assert margin.how == "assumed: 10% of the values, for kernels"


def test_the_margin_counts_every_context(check):
    text = "float[length,1024] x => float[length,1024] y { a = Relu(x) y = Relu(a) }"
    run = check(text, profiles=({"length": Span(1, 1, 1)}, {"length": Span(1, 64, 256)})).memory.run
    assert run[-1].mib == pytest.approx(0.1 * (2 + 2 / 256))
    assert run[-1].how == "assumed: 10% of the values of each of 2 contexts, for kernels"


def test_what_cannot_be_sized_is_told(check):
    run = check("float[8] x => int64[1,n] y { y = NonZero(x) }").memory.run
    assert run[-2].how == "alive at once, 1 of unknown size"


def test_a_cache_is_there_twice_with_its_factors_shown(check, device):
    shape = CacheShape(layers=3, heads=4, head_dim=64, dtype="float16", capacity=512)
    part = next(each for each in check(CHAIN, cache=shape).memory.run if each.what.startswith("cache"))
    assert part.mib == 2 * 3 * 2 * 4 * 512 * 64 * 2 / MIB == 3
    assert part.how == "2 x 3 x 2 x 4 x 512 x 64 x 2 bytes"


def test_what_other_graphs_made_is_held_for_the_decoder(check):
    port = Port("x", "float32", (256, 1024))
    shape = CacheShape(layers=1, heads=1, head_dim=1, capacity=1)
    run = check(CHAIN, cache=shape, inputs=(port,), outputs=(port,)).memory.run
    assert parts(run)["held for part"] == 1


def test_building_takes_four_times_the_weights_and_the_workspace(check, small, tmp_path):
    memory = check(CHAIN, small).memory
    weights = os.path.getsize(tmp_path / "part.onnx") / MIB
    assert parts(memory.build) == {
        "engine libraries": 400,
        "weights of part": 4 * weights,
        "builder's workspace": 100,
    }
    assert memory.build_mib == pytest.approx(500 + 4 * weights)


def test_a_device_that_compiles_nothing_has_no_plan_to_build(check, device):
    assert check(CHAIN, replace(device, stacks=(), opset=20)).memory.build == ()


@pytest.mark.parametrize(
    ("needed", "severities"), [(900, []), (901, ["warning"]), (1000, ["warning"]), (1001, ["error"])]
)
def test_a_plan_beyond_the_memory_is_refused_and_a_tight_one_doubted(small, needed, severities):
    plan = MemoryPlan((), (Sum("weights", needed, ""),), 1000)
    assert [each.severity for each in check_memory(plan, small)] == severities


def test_the_largest_part_is_named(small):
    plan = MemoryPlan((Sum("weights", 900, ""), Sum("workspace", 200, "")), (), 1000)
    (found,) = check_memory(plan, small)
    assert found.check == "memory/build" and "1,100 MiB of 1,000, most of it weights" in found.message


def test_a_build_beyond_its_own_limit_is_refused(small):
    plan = MemoryPlan((Sum("weights", 600, ""),), (), 1000)
    (found,) = check_memory(plan, replace(small, options={"builder_mb": 500}))
    assert found.check == "memory/builder"


def wide(columns: int) -> str:
    """A product with a weight of 1,024 x ``columns``."""
    fill = "s = Expand(one, size) m = Reshape(s, size) y = MatMul(x, m)"
    constants = f"<float one = {{1.0}}, int64[2] size = {{1024,{columns}}}>"
    return f"float[1,1024] x => float[1,{columns}] y {constants} {{ {fill} }}"


def test_a_product_that_needs_too_large_a_piece_is_to_be_split(check, device):
    target = replace(device, contiguous_mb=3)  # 1,024 x 1,024 x 2 x 1.5 bytes
    assert check(wide(1024), target).of("error") == ()
    (found,) = check(wide(1025), target).of("error")
    assert found.check == "memory/contiguous" and "1024 x 1025" in found.message and "into 2 products" in found.hint


def test_where_only_the_total_counts_a_large_product_is_fine(check, device):
    assert check(wide(2048), replace(device, contiguous_mb=0)).of("error") == ()
