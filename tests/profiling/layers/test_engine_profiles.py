"""Times of nodes become times of an answer, under the names of the ONNX graph."""

from mmedge.core.backend import NodeTime
from mmedge.core.onnx_graph import Node, OnnxGraph
from mmedge.profiling.layers.engine_profiles import Kernel, grouped, joined, kernels_of


def chain(*ops: str) -> OnnxGraph:
    """Nodes called as their operators, each reading what the one before makes."""
    nodes = tuple(
        Node(op, op.rstrip("0123456789"), "", (f"t{place}",), (f"t{place + 1}",), {}) for place, op in enumerate(ops)
    )
    return OnnxGraph(nodes, {}, ("t0",), (f"t{len(ops)}",))


def kernel(names: str, us: float = 1.0, node: str = "k") -> Kernel:
    return Kernel("encoder", node, "Op", tuple(names.split()), us)


def test_an_answer_is_its_prefill_and_as_many_steps_as_it_has():
    runs = [[NodeTime("a", "Add", ("a",), us)] for us in (99.0, 10.0, 1.0, 3.0, 2.0)]
    stages = ["", "prefill", "decode_loop", "decode_loop", "decode_loop"]
    (found,) = kernels_of("decoder", stages, runs, {"encode": 1.0, "prefill": 1.0, "decode_loop": 5.0})
    assert found.us == 10.0 + 5 * 2.0, "the median step; what warms up does not count"


def test_kernels_of_the_same_name_in_a_run_are_different_ones():
    run = [NodeTime("Gelu", "Gelu", ("a",), 1.0), NodeTime("Gelu", "Gelu", ("b",), 2.0)]
    found = kernels_of("encoder", ["encode", "encode"], [run, run], {"encode": 1.0})
    assert [(each.onnx_names, each.us) for each in found] == [(("a",), 1.0), (("b",), 2.0)]


def test_kernels_that_share_a_node_become_one_called_as_the_slowest():
    (found,) = joined([kernel("Norm", 5.0, "mvn"), kernel("Norm Add", 2.0, "scale")], chain("Add", "Norm"))
    assert (found.node, found.us, found.onnx_names) == ("mvn", 7.0, ("Add", "Norm"))


def test_a_weight_that_several_dequantize_does_not_make_them_one():
    kernels = [kernel("DequantizeLinear MatMul1"), kernel("DequantizeLinear MatMul2")]
    assert len(joined(kernels, chain("DequantizeLinear", "MatMul1", "MatMul2"))) == 2


def test_a_node_that_no_kernel_names_stands_with_the_one_that_reads_it():
    (found,) = joined([kernel("Add")], chain("MatMul", "Add"))
    assert found.onnx_names == ("MatMul", "Add")


def test_kernels_without_a_node_stay_alone():
    assert len(joined([kernel(""), kernel(""), kernel("Add")], chain("Add"))) == 3


def test_groups_are_joined_through_others():
    assert sorted(map(sorted, grouped([{"a"}, {"b"}, {"a", "b"}, {"c"}, set(), set()]))) == [[0, 1, 2], [3], [4], [5]]
