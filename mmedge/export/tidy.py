"""Clean a traced graph and write it: what an engine does not need does not travel."""

from __future__ import annotations

from pathlib import Path

import onnx_ir
from onnx_ir.passes import PassManager
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

IR_VERSION = 10
"""Read by ONNX Runtime 1.23 (the newest for Python 3.10 on aarch64); `onnx` writes a later one by default."""

INLINE_BYTES = 1024
"""Smaller constants stay in the graph: ONNX Runtime cannot infer shapes from external ones."""


def tidy(program: onnx_ir.Model) -> onnx_ir.Model:
    """Without metadata (most of an exported file, source paths among it), repeated constants and dead nodes."""
    passes = PassManager(
        [
            CommonSubexpressionEliminationPass(),
            DeduplicateInitializersPass(size_limit=1 << 62),
            RemoveUnusedNodesPass(),
            RemoveUnusedFunctionsPass(),
            RemoveUnusedOpsetsPass(),
            ClearMetadataAndDocStringPass(),
        ]
    )
    program = passes(program).model
    _forget_inner_shapes(program.graph)
    program.ir_version = IR_VERSION
    program.producer_name, program.producer_version = "mmedge", None
    return program


def write(program: onnx_ir.Model, path: Path) -> None:
    """To ``path``, the weights beside it in ``<name>.onnx.data``."""
    onnx_ir.save(program, path, external_data=f"{path.name}.data", size_threshold_bytes=INLINE_BYTES)


def _forget_inner_shapes(graph: onnx_ir.Graph) -> None:
    """The exporter's symbols for inner sizes change from run to run, and quantizers stumble over them."""
    outputs = set(graph.outputs)
    for node in graph:
        for value in node.outputs:
            if value not in outputs:
                value.shape = None
