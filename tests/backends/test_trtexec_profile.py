"""What trtexec exports, from samples in the form of its versions 8.6 and 10."""

import pytest

from mmedge.backends._trtexec_profile import node_times
from mmedge.errors import InputError

NAMES = ("vision.conv/Conv", "vision.act/Relu", "vision.fc1/MatMul", "vision.fc1/Add", "vision.norm/LayerNormalization")
FOREIGN = "{ForeignNode[vision.fc1/MatMul...vision.norm/LayerNormalization]}"
PROFILE = f"""[
  {{ "count" : 310 }}
, {{ "name" : "Reformatting CopyNode for Input Tensor 0 to vision.conv/Conv",
    "timeMs" : 1.55, "averageMs" : 0.005, "medianMs" : 0.004, "percentage" : 1.1 }}
, {{ "name" : "vision.conv/Conv + vision.act/Relu",
    "timeMs" : 31.0, "averageMs" : 0.1, "medianMs" : 0.09, "percentage" : 60.0 }}
, {{ "name" : "{FOREIGN}",
    "timeMs" : 15.5, "averageMs" : 0.05, "medianMs" : 0.049, "percentage" : 38.9 }}
]""".encode()
LAYERS = rf"""{{"Layers": [
  {{"Name": "vision.conv/Conv + vision.act/Relu", "LayerType": "CaskConvolution", "Inputs": [], "Outputs": [],
   "TacticName": "sm80_xmma_fprop", "StreamId": 0,
   "Metadata": "[ONNX Layer: vision.conv/Conv]\u001e[ONNX Layer: vision.act/Relu]"}},
  {{"Name": "{FOREIGN}", "LayerType": "Myelin", "Metadata": "[ONNX Layer: vision.fc1/MatMul]\u001f
[ONNX Layer: vision.fc1/Add]\u001f[ONNX Layer: vision.norm/LayerNormalization]"}}
], "Bindings": ["pixels", "features"]}}""".replace("\\u001f\n", "\\u001f").encode()


def test_a_layer_lists_the_nodes_it_was_made_from():
    times = node_times(PROFILE, LAYERS, NAMES)
    assert [(time.op, time.onnx_names) for time in times[1:]] == [
        ("CaskConvolution", ("vision.conv/Conv", "vision.act/Relu")),
        ("Myelin", ("vision.fc1/MatMul", "vision.fc1/Add", "vision.norm/LayerNormalization")),
    ]


def test_times_are_medians_in_microseconds():
    assert [time.us for time in node_times(PROFILE, LAYERS, NAMES)] == pytest.approx([4.0, 90.0, 49.0])


def test_without_details_names_are_taken_from_the_name_of_the_layer():
    plain = b'{"Layers": ["vision.conv/Conv + vision.act/Relu", "other"], "Bindings": []}'
    for layers in (plain, None):
        times = node_times(PROFILE, layers, NAMES)
        assert times[1].onnx_names == ("vision.conv/Conv", "vision.act/Relu")
        assert times[2].onnx_names == ("vision.fc1/MatMul", "vision.norm/LayerNormalization")


def test_a_copy_stands_with_the_node_it_is_made_for():
    assert node_times(PROFILE, LAYERS, NAMES)[0].onnx_names == ("vision.conv/Conv",)


def test_before_version_8_5_the_mean_is_told():
    old = b'[{"count": 5}, {"name": "PWN(vision.act/Relu)", "timeMs": 1.0, "averageMs": 0.2, "percentage": 100}]'
    (time,) = node_times(old, None, NAMES)
    assert (time.us, time.onnx_names) == (200.0, ("vision.act/Relu",))


def test_another_file_is_refused():
    with pytest.raises(InputError, match="no profile of trtexec"):
        node_times(b'{"traceEvents": []}', None, NAMES)
