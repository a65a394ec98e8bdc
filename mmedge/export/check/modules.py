"""From a node back to the torch module it was traced from."""

from __future__ import annotations

import onnx_ir

from mmedge.export.naming import module_of

_FARTHEST = 4


def module_near(node: onnx_ir.Node) -> str:
    """The module that its name tells; a node that was added later has that of the nearest node after it, or before."""
    reached, known = [node], {node}
    for _ in range(_FARTHEST):
        for each in reached:
            if module := module_of(each.name or ""):
                return module
        after = [use for each in reached for use in each.successors()]
        before = [source for each in reached for source in each.predecessors()]
        reached = [each for each in dict.fromkeys((*after, *before)) if each not in known]
        known.update(reached)
    return ""
