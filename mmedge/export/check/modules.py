"""From a node back to the torch module it was traced from."""

from __future__ import annotations

import onnx_ir

_FARTHEST = 4


def module_of(node: onnx_ir.Node) -> str:
    """``<module path>/<Op>_<n>`` names it; a node that was added later has the module of the nearest node after it, or
    before it, that was traced."""
    reached = [node]
    for _ in range(_FARTHEST):
        for each in reached:
            if "/" in (each.name or ""):
                return str(each.name).rpartition("/")[0]
        after = [use for each in reached for use in each.successors()]
        reached = after or [before for each in reached for before in each.predecessors()]
    return ""
