"""Everything that is decided and refused before a weight is read: `mmedge check` ends here, an export begins here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec.structs

from mmedge.core import find
from mmedge.core.names import readable
from mmedge.core.plan import Plan, make_plan
from mmedge.core.recipe import Calibration, LabelSet, Recipe, load_recipe
from mmedge.core.samples import Sample, read_samples
from mmedge.errors import UsageError
from mmedge.export.belong import check_belonging
from mmedge.export.estimate import Estimate, estimate
from mmedge.export.fetch import find_checkpoint
from mmedge.export.load import Checkpoint, read_checkpoint
from mmedge.runtime.classify import check_templates, read_labels


class Prepared(NamedTuple):
    """What an export will do, with what, and what it will cost."""

    checkpoint: Checkpoint
    plan: Plan
    samples: tuple[Sample, ...]
    """For calibration."""
    labels: tuple[str, ...]
    """What pictures shall be told apart by; none where nobody says."""
    costs: Estimate
    recipe: Path | None
    """Where it was found, named or as the one that ships for this model."""


def prepare(
    model: str | None,
    recipe: Path | str | None = None,
    *,
    target: str | None = None,
    precision: str | None = None,
    calibration: Path | str | None = None,
    labels: Path | str | None = None,
    templates: Sequence[str] = (),
) -> Prepared:
    """Read all but the weights of ``model``; the arguments are those of `mmedge.export.build.export`.

    Raises:
        MmedgeError: its children say what cannot be done.
    """
    request, path = choose_recipe(model, recipe, target=target, precision=precision, calibration=calibration)
    if labels or templates:
        request = msgspec.structs.replace(request, labels=_label_set(request.labels, labels, templates))
    names = _read_labels(request.labels, path) if request.labels else ()
    wanted = find.target(request.target)
    checkpoint = read_checkpoint(find_checkpoint(request.model, request.revision))
    plan = make_plan(request, wanted, checkpoint.family, checkpoint.config)
    check_belonging(checkpoint, plan)
    samples = _read_samples(request.calibration, path, plan.modality) if request.calibration else ()
    costs = estimate(plan.without_texts() if names else plan, checkpoint)
    return Prepared(checkpoint, plan, samples, names, costs, path)


def _read_samples(calibration: Calibration, recipe: Path | None, modality: str) -> tuple[Sample, ...]:
    return read_samples(calibration.files, recipe and recipe.parent, modality=modality)


def _label_set(own: LabelSet | None, labels: Path | str | None, templates: Sequence[str]) -> LabelSet:
    """The recipe's, with the given fields replaced."""
    if not (labels or own):
        raise UsageError("templates are given, and no labels", hint="--labels labels.txt")
    file = str(Path(labels).resolve()) if labels else own.file if own else ""
    return LabelSet(file, tuple(templates) or (own.templates if own else ()))


def _read_labels(labels: LabelSet, recipe: Path | None) -> tuple[str, ...]:
    check_templates(labels.templates)
    return read_labels((recipe.parent if recipe else Path()) / labels.file)


def choose_recipe(
    model: str | None,
    recipe: Path | str | None = None,
    *,
    target: str | None = None,
    precision: str | None = None,
    calibration: Path | str | None = None,
) -> tuple[Recipe, Path | None]:
    """The recipe with the given fields replaced, and where it was found; without ``model`` it is the recipe's own.

    Precisions are chosen for a device: a recipe that was not asked for by name keeps its own for its own target.
    """
    if not (model or recipe):
        raise UsageError("no model is named", hint="a folder, a Hub name, builtin:scenes; or a recipe that names one")
    path = _recipe_file(recipe) if recipe else _own_recipe(str(model))
    request = load_recipe(path) if path else Recipe(name=_name_of(str(model)), model=str(model))
    changes: dict[str, Any] = {"model": model} if model else {}
    if target:
        changes["target"] = target
        if not recipe and find.target(target).name != find.target(request.target).name:
            changes |= {"precision": None, "component": (), "accept": None}
    if precision:
        changes |= {"precision": precision, "component": ()}
    if calibration:
        old = request.calibration or Calibration(files="")
        changes["calibration"] = msgspec.structs.replace(old, files=str(Path(calibration).resolve()))
    if precision and precision != request.precision:
        changes["accept"] = None
    return msgspec.structs.replace(request, **changes), path


def _recipe_file(recipe: Path | str) -> Path:
    """A file of the user's, or one that ships, by its name."""
    shipped = find.data("recipes") / f"{recipe}.toml"
    return shipped if shipped.is_file() and not Path(recipe).exists() else Path(recipe)


def _own_recipe(model: str) -> Path | None:
    """The recipe that ships for this very model."""
    paths = sorted(find.data("recipes").glob("*.toml"))
    return next((path for path in paths if load_recipe(path).model == model), None)


def _name_of(model: str) -> str:
    """Of the folder, of the model on the Hub or of the built-in one."""
    return readable(Path(model).resolve().name.rpartition(":")[2]) or "model"
