"""``mmedge check``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmedge.core.plan import Plan
    from mmedge.export.estimate import Estimate


def check(
    model: str,
    *,
    target: str | None = None,
    recipe: Path | None = None,
    precision: str | None = None,
    calibration: Path | None = None,
    json: bool = False,
) -> None:
    """Say what an export would make and what it would cost on the device, before any weight is read.

    Args:
        model: As for `mmedge export`.
        target: As for `mmedge export`.
        recipe: As for `mmedge export`.
        precision: As for `mmedge export`.
        calibration: As for `mmedge export`.
        json: Print it as JSON.
    """
    import msgspec

    from mmedge.core.find import target as find_target
    from mmedge.core.plan import make_plan
    from mmedge.needs import needs

    with needs("export"):
        from mmedge.export.build import choose_recipe
        from mmedge.export.estimate import check_target, estimate
        from mmedge.export.load import find_checkpoint, read_checkpoint

    request, _ = choose_recipe(model, recipe, target=target, precision=precision, calibration=calibration)
    checkpoint = read_checkpoint(find_checkpoint(request.model, request.revision))
    plan = make_plan(request, find_target(request.target), checkpoint.family, checkpoint.config)
    costs = estimate(plan, checkpoint)
    if json:
        found = {"model": request.model, "family": plan.family.name, "target": plan.target, "estimate": costs}
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        _show(plan, costs)
    check_target(costs, plan.target)


def _show(plan: Plan, costs: Estimate) -> None:
    from mmedge.commands._table import show_table

    print(f"family  {plan.family.name}: {', '.join(plan.family.tasks(plan.config))}")
    print(f"target  {plan.target.name}: {plan.target.title}\n")
    rows = (
        (
            cost.component,
            cost.precision,
            plan.target.backends["decode" if cost.component in _decoders(plan) else "tower"],
            f"{cost.parameters / 1e6:.1f} M",
            f"{cost.gflop:.2f}",
            f"{cost.weights_mb:.1f}",
            f"{cost.working_mb:.1f}",
        )
        for cost in costs.costs
    )
    titles = ("component", "precision", "engine", "weights", "GFLOP/run", "MiB", "working MiB")
    show_table(titles, rows, wrap="component")
    print(f"\nto run    about {costs.run_mb:.0f} MiB of the {plan.target.memory_mb} that the target can plan with")
    print(f"to build  about {costs.build_mb:.0f} MiB here")


def _decoders(plan: Plan) -> set[str]:
    return {component.name for component in plan.components if component.cache}
