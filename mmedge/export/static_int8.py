"""Static int8: weights and activations, with Q/DQ placed where the target's engine turns them into integer kernels.

Measured with onnxruntime 1.31 and openvino 2026.4 on x86 with AVX512-VNNI, ViT-B/16 at 384 px and a tower of 4 layers
of 192:

- ONNX Runtime moves the bias of ``MatMul -> Add`` into a Gemm before it looks for Q/DQ, and an int8 Gemm needs an int32
  bias. With a float bias the whole product stays in float32 behind a DequantizeLinear: 0.4-0.8 times the speed of
  float32. Spelled as a Gemm with an int32 bias it is 1.7-2.6 times as fast, and OpenVINO loses nothing (2.1-3.2 times).
- Quantized outputs of these products cost speed (1.6-2.5 times) and accuracy; quantized additions save little in the
  large model, cost speed in the small one and three times the error.
- Weights per channel take 0-8 % more time than per tensor, with 30 % less error.

TensorRT wants signed symmetric activations and float biases (the builder fuses them), and no other change.

nncf is not used here: what `nncf.quantize` makes of the same tower has signed activations that ONNX Runtime 1.31 cannot
open at operator set 23, and on OpenVINO it has 15 % more error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir.passes.common import IdentityEliminationPass
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData, create_calibrator
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

from mmedge.core.ports import Tensors
from mmedge.errors import InputError, PlanError
from mmedge.export.spelling import bias_add, own_constants, set_apart, spell_as_gemm, weight

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}

PRODUCTS = ["Gemm", "MatMul"]

SIGNED_OPSET = 20
"""With later ones ONNX Runtime 1.31, which judges every graph, fails to open a graph with signed activations: it turns
them into unsigned ones and forgets to say so in QuantizeLinear."""

ENTROPY_BINS = 512
"""Bins of the histogram whose best cut is searched. ONNX Runtime's own choice of 128 leaves nothing to cut; its search
takes a time that grows with the square."""

SMALLEST_RANGE = 1e-4
"""What the range of a tensor is widened to that is constant in the calibration data: its scale would be 0."""


def quantize_static(
    program: onnx_ir.Model, kept: set[str], feeds: Sequence[Tensors], method: str, activations: str, work: Path
) -> tuple[onnx_ir.Model, tuple[str, ...]]:
    """``program`` with Q/DQ around its matrix products and convolutions but those named in ``kept``.

    Raises:
        PlanError: nothing is left to quantize, there is no such method, or the operator set is too new.
        InputError: there is no calibration data, or the graph's values on it are not finite.
    """
    if method not in METHODS:
        raise PlanError(f"`{method}` is no calibration method", hint=f"choose from: {', '.join(METHODS)}")
    if not feeds:
        raise InputError("static int8 takes its ranges from calibration data, and there is none")
    unsigned = activations == "uint8"
    if not unsigned and program.opset_imports[""] > SIGNED_OPSET:
        raise PlanError(
            f"signed activations need operator set {SIGNED_OPSET} or lower, the graph has {program.opset_imports['']}"
        )
    names, warnings = _prepare(program.graph, kept, unsigned)
    path = work / "prepared.onnx"
    onnx_ir.save(program, path, external_data="prepared.onnx.data", size_threshold_bytes=1024)
    ranges = measure_ranges(path, feeds, method, work, ["Conv", *PRODUCTS])
    return _quantize(path, names, ranges, unsigned), warnings


def quantizable(graph: onnx_ir.Graph) -> list[onnx_ir.Node]:
    """Products with constant weights; the attention's own stay in float, and so does a convolution that reads the
    input itself: the first layer costs little time and much accuracy."""
    return [
        node
        for node in graph
        if weight(node) is not None and not (node.op_type == "Conv" and node.inputs[0].is_graph_input())
    ]


def measure_ranges(
    path: Path, feeds: Sequence[Tensors], method: str, work: Path, op_types: list[str] | None = None
) -> TensorsData:
    """Range of every float tensor around nodes of ``op_types``, over all ``feeds``.

    One feed at a time: the histogram methods hold all activations of what they are given at once.
    """
    calibrator = create_calibrator(
        path,
        op_types,
        augmented_model_path=str(work / "augmented.onnx"),
        calibrate_method=METHODS[method],
        use_external_data_format=True,
        extra_options={"symmetric": False, **({"num_bins": ENTROPY_BINS} if method == "entropy" else {})},
    )
    for index in range(len(feeds)):
        calibrator.collect_data(_Once(feeds[index]))
    ranges = calibrator.compute_data()
    for name, data in ranges.items():
        low, high = (float(np.squeeze(bound)) for bound in data.range_value)
        if not np.isfinite([low, high]).all() and not low > high:  # the range of a cache that is always empty
            raise InputError(f"the values of `{name}` are not finite on the calibration data: {low:g} to {high:g}")
    return ranges


class _Once:
    """A single feed, in the form that calibrators read."""

    def __init__(self, feed: Tensors) -> None:
        self.feeds = iter([feed])

    def get_next(self) -> Tensors | None:
        return next(self.feeds, None)


def _prepare(graph: onnx_ir.Graph, kept: set[str], unsigned: bool) -> tuple[list[str], tuple[str, ...]]:
    """Spell the graph for the quantizer; the names of the nodes that it shall quantize, and warnings."""
    nodes = [node for node in quantizable(graph) if node.name not in kept]
    slow: list[onnx_ir.Node] = []
    if unsigned:
        nodes = spell_as_gemm(graph, nodes)
        slow = [node for node in nodes if node.op_type == "MatMul" and bias_add(node)]
        nodes = [node for node in nodes if node not in slow]
    if not nodes:
        raise PlanError("nothing is left to quantize to int8", hint="`keep` fewer nodes, or choose float32")
    own_constants(graph, nodes)
    set_apart(graph, nodes)
    warnings = (f"`{node.name}` stays in float32: the shape of its output is not known" for node in slow)
    return [str(node.name) for node in nodes], tuple(warnings)


def _quantize(path: Path, names: list[str], ranges: TensorsData, unsigned: bool) -> onnx_ir.Model:
    model = load_model_with_shape_infer(path)
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if unsigned else QuantType.QInt8,
        tensors_range=ranges,
        nodes_to_quantize=names,
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv", *PRODUCTS],
        extra_options=_options(unsigned),
    )
    program = onnx_ir.from_proto(quantizer.quantize_model())
    IdentityEliminationPass()(program)
    return program


def _options(unsigned: bool) -> dict[str, Any]:
    return {
        "WeightSymmetric": True,
        "ActivationSymmetric": not unsigned,
        "QuantizeBias": unsigned,
        # ONNX Runtime has no integer convolution with a float output.
        "OpTypesToExcludeOutputQuantization": PRODUCTS if unsigned else ["Conv", *PRODUCTS],
        "QDQDisableWeightAdjustForInt32Bias": not unsigned,
        "AddQDQPairToWeight": False,
        "DedicatedQDQPair": False,
        "MatMulConstBOnly": True,
        "MinimumRealRange": SMALLEST_RANGE,
        # ONNX Runtime 1.23, the newest for Python 3.10, has no QuantizeLinear of opset 23; its own, `com.microsoft`, is
        # read by every later one and by OpenVINO.
        "UseQDQContribOps": unsigned,
    }
