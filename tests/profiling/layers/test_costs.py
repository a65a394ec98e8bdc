"""Operations and bytes of nodes, counted by hand."""

import pytest

from mmedge.core.onnx_graph import Node, OnnxGraph, Tensor
from mmedge.profiling.layers.costs import Run, flops_of, run_costs


def node(op: str, inputs: str, outputs: str = "y", **numbers: int) -> Node:
    return Node(f"{op}:{outputs}", op, "", tuple(inputs.split()), tuple(outputs.split()), numbers)


def cost(nodes: list[Node], constants: dict[str, Tensor], shapes: dict[str, Tensor], fed: str = "x") -> Run:
    """Of a graph whose nodes make tensors of these shapes."""
    graph = OnnxGraph(tuple(nodes), constants, tuple(fed.split()), nodes[-1].outputs)
    made = {each.name: tuple(shapes[name] for name in each.outputs if name in shapes) for each in nodes}
    return run_costs(graph, made, {name: shapes[name] for name in graph.inputs})


def float32(*shape: int) -> Tensor:
    return Tensor("float32", shape)


@pytest.mark.parametrize(
    ("made", "shapes", "flops"),
    [
        (node("MatMul", "x w"), {"x": float32(2, 5, 7), "w": float32(7, 3), "y": float32(2, 5, 3)}, 2 * 2 * 5 * 3 * 7),
        (node("Gemm", "x w b"), {"x": float32(5, 7), "w": float32(7, 3), "y": float32(5, 3)}, 2 * 5 * 3 * 7 + 15),
        (node("Gemm", "x w", transA=1), {"x": float32(7, 5), "y": float32(5, 3)}, 2 * 5 * 3 * 7),
        (
            node("Conv", "x w"),
            {"x": float32(1, 3, 8, 8), "w": float32(4, 3, 2, 2), "y": float32(1, 4, 4, 4)},
            2 * 64 * 12,
        ),
        (node("MatMulNBits", "x w s", K=64, N=3), {"x": float32(2, 5, 64)}, 2 * 10 * 64 * 3),
        (
            node("Attention", "q k v"),
            {"q": float32(1, 2, 5, 8), "k": float32(1, 2, 9, 8), "v": float32(1, 2, 9, 8), "y": float32(1, 2, 5, 8)},
            4 * 2 * 5 * 9 * 8,
        ),
        (
            node("Attention", "q k v", q_num_heads=2, kv_num_heads=2),
            {"q": float32(1, 5, 16), "k": float32(1, 9, 16), "v": float32(1, 9, 16)},
            4 * 5 * 9 * 16,
        ),
        (
            node("GroupQueryAttention", "q k v pk pv", "y K V", num_heads=4),
            {"q": float32(1, 5, 32), "K": float32(1, 2, 9, 8)},
            4 * 5 * 4 * 8 * 9,
        ),
        (node("LayerNormalization", "x s b"), {"x": float32(5, 7), "s": float32(7), "y": float32(5, 7)}, 35),
        (node("Transpose", "x"), {"x": float32(5, 7), "y": float32(7, 5)}, 0),
        (node("Reshape", "x s"), {"x": float32(5, 7), "y": float32(35)}, 0),
        (node("MatMulInteger", "x w"), {"x": Tensor("uint8", (5, 7)), "y": Tensor("int32", (5, 3))}, 2 * 5 * 3 * 7),
        (
            node("QLinearConv", "x xs xz w"),
            {"w": Tensor("int8", (4, 3, 2, 2)), "y": Tensor("int8", (1, 4, 4, 4))},
            1536,
        ),
    ],
)
def test_operations(made, shapes, flops):
    assert flops_of(made, shapes) == flops


def test_operations_of_an_unknown_operator_are_not_guessed():
    unknown = node("HouseholderOfTheirs", "x")
    run = cost([unknown], {}, {"x": float32(5), "y": float32(5)})
    assert run.unknown == (unknown.name,)
    assert run.nodes[unknown.name].moved == 40


def test_a_weight_of_four_bits_counts_half_a_byte_and_its_product_as_quantized():
    nodes = [node("DequantizeLinear", "w s", "dw"), node("MatMul", "x dw")]
    constants = {"w": Tensor("int4", (64, 8)), "s": float32(1, 8)}
    run = cost(nodes, constants, {"x": float32(1, 64), "dw": float32(64, 8), "y": float32(1, 8)})
    assert run.weights == 64 * 8 // 2 + 8 * 4
    assert (run.quantized_flops, run.rest_flops) == (2 * 64 * 8, 0)
    assert run.nodes["MatMul:y"].weights == run.weights


def test_between_quantized_nodes_the_small_tensor_is_moved():
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("MatMul", "d w"),
    ]
    constants = {"s": float32(), "z": Tensor("uint8", ()), "w": float32(8, 2)}
    shapes = {"x": float32(4, 8), "q": Tensor("uint8", (4, 8)), "d": float32(4, 8), "y": float32(4, 2)}
    run = cost(nodes, constants, shapes)
    assert run.nodes["MatMul:y"].moved == 32 + 4 * 2 * 4
    assert run.quantized_flops == 0, "its weight is not quantized"


def test_of_a_table_only_the_rows_that_are_looked_up_are_read():
    run = cost(
        [node("Gather", "table x")], {"table": float32(1000, 8)}, {"x": Tensor("int64", (1, 3)), "y": float32(1, 3, 8)}
    )
    assert run.weights == 3 * 8 * 4
    assert run.nodes["Gather:y"].moved == 3 * 8 + 2 * 3 * 8 * 4


def test_a_constant_that_two_nodes_read_counts_once():
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "a w")]
    run = cost(nodes, {"w": float32(8, 8)}, {"x": float32(1, 8), "a": float32(1, 8), "y": float32(1, 8)})
    assert run.weights == 8 * 8 * 4


def test_what_is_computed_from_constants_alone_is_computed_once_and_costs_nothing():
    nodes = [node("Transpose", "w", "wt"), node("MatMul", "x wt")]
    shapes = {"x": float32(1, 8), "wt": float32(8, 3), "y": float32(1, 3)}
    run = cost(nodes, {"w": float32(3, 8)}, shapes)
    assert "Transpose:wt" not in run.nodes
    assert run.nodes["MatMul:y"].weights == 3 * 8 * 4


def test_a_growing_cache_is_read_whole_and_written_where_it_grows():
    nodes = [node("Concat", "past.0.key x", "present.0.key")]
    shapes = {"past.0.key": float32(1, 2, 9, 8), "x": float32(1, 2, 1, 8), "present.0.key": float32(1, 2, 10, 8)}
    run = cost(nodes, {}, shapes, fed="past.0.key x")
    assert (run.fed, run.written) == (10 * 2 * 8 * 4, 2 * 8 * 4)


def test_a_fixed_cache_goes_from_one_set_of_buffers_to_the_other():
    nodes = [node("TensorScatter", "past.0.key x", "present.0.key")]
    shapes = {"past.0.key": float32(1, 2, 16, 8), "x": float32(1, 2, 1, 8), "present.0.key": float32(1, 2, 16, 8)}
    assert cost(nodes, {}, shapes, fed="past.0.key x").written == 16 * 2 * 8 * 4


def test_the_shape_of_an_elementwise_node_that_was_not_told_is_that_of_what_it_reads():
    nodes = [node("Gelu", "x", "g"), node("MatMul", "g w")]
    run = cost(nodes, {"w": float32(8, 2)}, {"x": float32(4, 8), "y": float32(4, 2)})
    assert run.rest_flops == 32 + 2 * 4 * 2 * 8
    assert not run.unknown
