"""``mmedge check``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmedge.core.plan import Plan
    from mmedge.export.estimate import Estimate


def check(
    model: str | None = None,
    *,
    target: str | None = None,
    recipe: Path | None = None,
    precision: str | None = None,
    calibration: Path | None = None,
    length: int | None = None,
    json: bool = False,
) -> int:
    """Say what an export would make and what it would cost on the device, before any weight is read; or what would
    fail there of a bundle, before it is copied.

    Args:
        model: As for `mmedge export`; or a bundle, which ends with exit code 4 if something would fail.
        target: As for `mmedge export`; of a bundle, what it was made for unless told otherwise.
        recipe: As for `mmedge export`.
        precision: As for `mmedge export`.
        calibration: As for `mmedge export`.
        length: Of a bundle: how long a conversation may get, in tokens of pictures, texts and answers; 1024, or as many
            as the model reads, unless told otherwise.
        json: Print it as JSON.
    """
    import msgspec

    from mmedge.commands._findings import check_files
    from mmedge.core.manifest import MANIFEST
    from mmedge.errors import UsageError
    from mmedge.needs import needs

    if model and (Path(model) / MANIFEST).is_file():
        for name, value in (("recipe", recipe), ("precision", precision), ("calibration", calibration)):
            if value is not None:
                raise UsageError(f"`--{name}` is for a model, and `{model}` is a bundle, which is exported already")
        return check_files(Path(model), target, length, json)

    if length is not None and model:
        raise UsageError(f"`--length` is for a bundle, and `{model}` is a model", hint="export it first")

    with needs("export"):
        from mmedge.export.estimate import too_large
        from mmedge.export.prepare import prepare

    prepared = prepare(model, recipe, target=target, precision=precision, calibration=calibration)
    plan, costs, own = prepared.plan, prepared.costs, prepared.recipe
    problem = too_large(costs, plan.target)
    if json:
        found = {
            "model": plan.recipe.model,
            "recipe": own and own.stem,
            "family": plan.family.name,
            "target": plan.target,
            "estimate": costs,
            "refused": problem and problem.message,
        }
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return problem.exit_code if problem else 0
    if own:
        print(f"recipe  {own.stem}")
    _show(plan, costs)
    if problem:
        raise problem
    return 0


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
