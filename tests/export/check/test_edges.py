"""Values that one graph hands to another."""

import onnx
import pytest
from msgspec.structs import replace

from mmedge.core.manifest import Graph
from mmedge.core.ports import Port
from mmedge.export.check.run import check_graphs


@pytest.fixture
def joined(device, tmp_path):
    """The checks found for two graphs, of which the second reads the ``feature`` that the first makes."""

    def run(given: Port, read: Port, precision: str = "float32", typed: bool = False) -> list[str]:
        graphs = []
        for component, source, result in (("maker", Port("x", "float32", (1, 4)), given), ("reader", read, None)):
            result = result or Port("y", "float32", (1, 4))
            ports = [
                f"{'float16' if port.dtype == 'float16' else 'float'}[1,4] {port.name}" for port in (source, result)
            ]
            to = 10 if result.dtype == "float16" else 1
            model = onnx.parser.parse_model(
                f'<ir_version: 10, opset_import: ["" : 20]> {component} ({ports[0]}) => ({ports[1]})'
                f"{{ h = Cast<to=10>({source.name}) r = Relu(h) {result.name} = Cast<to={to}>(r) }}"
            )
            onnx.save(model, tmp_path / f"{component}.onnx")
            graphs.append(Graph(component, f"{component}.onnx", (source,), (result,), precision))
        found = check_graphs(graphs, tmp_path, replace(device, typed=typed)).found
        return [each.check for each in found if each.severity != "note"]

    return run


FEATURE = Port("feature", "float32", (1, 4))
HALF = Port("feature", "float16", (1, 4))


def test_the_same_on_both_sides_is_fine(joined):
    assert joined(FEATURE, FEATURE) == []


def test_another_type_on_the_other_side_is_refused(joined):
    assert joined(HALF, FEATURE) == ["ports/edge"]


def test_another_size_on_the_other_side_is_refused(joined):
    assert "ports/edge" in joined(FEATURE, Port("feature", "float32", (1, 5)))


def test_where_types_are_obeyed_float32_between_float16_graphs_is_warned_about(joined):
    assert joined(FEATURE, FEATURE, "float16", typed=True) == ["target/edges"]
    assert joined(HALF, HALF, "float16", typed=True) == []
