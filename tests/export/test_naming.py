import onnx_ir

from mmedge.export.naming import SCOPES, module_of, name_nodes


def graph_of(*scopes: str | None) -> onnx_ir.Graph:
    """A chain of Relu nodes, each with the scopes that the exporter notes."""
    value = source = onnx_ir.Value(name="x")
    nodes = []
    for scope in scopes:
        node = onnx_ir.node("Relu", [value])
        if scope is not None:
            node.metadata_props[SCOPES] = scope
        nodes.append(node)
        value = node.outputs[0]
    return onnx_ir.Graph([source], [value], nodes=nodes)


def names(*scopes: str | None) -> list[str | None]:
    graph = graph_of(*scopes)
    name_nodes(graph)
    return [node.name for node in graph]


def test_a_node_is_called_after_its_innermost_module():
    assert names("['', 'model.text', 'model.text.layer.0.output', 'relu']") == ["text.layer.0.output/Relu"]


def test_nodes_of_the_same_name_are_counted():
    scope = "['', 'model.head', 'relu']"
    assert names(scope, scope, scope) == ["head/Relu", "head/Relu_1", "head/Relu_2"]


def test_a_node_outside_of_any_module_is_called_after_the_parent_of_the_next_one():
    attention = ("['', 'matmul']", None, "['', 'model.layer.3.attention.output', 'linear']")
    assert names(*attention) == ["layer.3.attention/Relu", "layer.3.attention/Relu_1", "layer.3.attention.output/Relu"]


def test_a_node_behind_the_last_module_is_called_after_its_operator():
    assert names("['', 'model.head', 'linear']", "['', 'relu']") == ["head/Relu", "Relu"]


def test_the_module_can_be_read_from_the_name():
    assert (module_of("layer.3.attention/MatMul_1"), module_of("MatMul")) == ("layer.3.attention", "")
