"""What an export will do, decided and refused before anything is downloaded whole, traced or written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches

import msgspec

from mmedge.core.family import MODALITIES, Component, Config, Family
from mmedge.core.ports import Span
from mmedge.core.recipe import METHODS, PRECISIONS, Acceptance, ComponentPlan, Recipe
from mmedge.core.similarity import SUFFIX
from mmedge.core.target import Target
from mmedge.errors import PlanError

LOSSLESS = Acceptance(cosine=0.9999, answers=1.0, max_abs=1e-3)
HALF = Acceptance(cosine=0.999, answers=0.85)
QUANTIZED = Acceptance(cosine=0.95, answers=0.8)
"""What an export may lose when the recipe does not say; a recipe for production should."""

INT4_OPSET = 21
"""Blocked DequantizeLinear and the type INT4 came with this operator set."""


@dataclass(frozen=True)
class Plan:
    """A recipe made definite for one checkpoint and one target."""

    recipe: Recipe
    target: Target
    family: Family
    config: Config
    components: tuple[Component, ...]
    """Those of the family, with caches and sizes as the recipe and the target want them."""
    choices: dict[str, ComponentPlan]
    """How each component is made, by its name."""
    accept: Acceptance

    @property
    def precision(self) -> str:
        """The component precisions in a word: the preset's name, or the precision of all."""
        return _precision(self.recipe, self.target)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the bundle can be asked for."""
        return ("classify",) if self.recipe.labels else self.family.tasks(self.config)

    @property
    def modality(self) -> str:
        """What samples are: sounds of a model that hears and does not see, else pictures."""
        reads = self.family.reads(self.config)
        return "audio" if "audio" in reads and "image" not in reads else "image"

    def without_texts(self) -> Plan:
        """What still runs where texts are numbers by then."""
        text = f"text{SUFFIX}"
        kept = tuple(part for part in self.components if text not in {port.name for port in part.outputs})
        return replace(self, components=kept, choices={part.name: self.choices[part.name] for part in kept})

    @property
    def needs_calibration(self) -> bool:
        """Whether any component's activations are quantized."""
        return any(choice.precision == "int8" for choice in self.choices.values())


def make_plan(recipe: Recipe, target: Target, family: Family, config: Config) -> Plan:
    """Decide every component's precision.

    Raises:
        PlanError: the recipe names what is not there, or asks for what the target or the data cannot give.
    """
    if recipe.family not in (None, family.name):
        raise PlanError(f"the recipe is for a `{recipe.family}` model, the checkpoint is `{family.name}`")
    _refuse_numbers(recipe)
    components = family.components(config)
    choices = {component.name: _choose(component, recipe, target) for component in components}
    _refuse_unknown(recipe, tuple(choices))
    components = tuple(_fit(component, choices[component.name], target) for component in components)
    if recipe.labels and "embed" not in family.tasks(config):
        raise PlanError(f"a `{family.name}` model has no use for labels", hint="leave out --labels")
    plan = Plan(recipe, target, family, config, components, choices, recipe.accept or _default_accept(choices))
    if plan.needs_calibration and recipe.calibration is None:
        raise PlanError(
            "static int8 takes its ranges from calibration data, and none is given",
            hint=f"--calibration FOLDER of at least 8 {MODALITIES[plan.modality]} like those the device will see, "
            "or a recipe with some",
        )
    return plan


def _choose(component: Component, recipe: Recipe, target: Target) -> ComponentPlan:
    named = next((choice for choice in recipe.component if choice.name == component.name), None)
    precision = _precision(recipe, target)
    preset = target.presets.get(precision, {})
    choice = named or ComponentPlan(component.name, preset.get(component.role, precision))
    _refuse_precision(choice, target)
    if component.cache and choice.precision == "int8":
        raise PlanError(
            f"static int8 slows `{component.name}` down: it reads one token at a time, so weights are all that counts",
            hint="set its precision to `int8-weights`",
        )
    return choice


def _precision(recipe: Recipe, target: Target) -> str:
    return target.precision if recipe.precision is None else recipe.precision


def _fit(component: Component, choice: ComponentPlan, target: Target) -> Component:
    """The component with the recipe's sizes, and a cache of the kind that the target's engine wants."""
    for word, span in choice.sizes.items():
        own = component.sizes.get(word)
        if own is None:
            raise PlanError(
                f"`{component.name}` has no size `{word}` that varies",
                hint=f"it has: {', '.join(component.sizes) or 'none'}",
            )
        if not own.smallest <= span.smallest <= span.usual <= span.largest <= own.largest:
            raise PlanError(
                f"`{word}` of `{component.name}` cannot be {span.smallest}, {span.usual}, {span.largest}",
                hint=f"three growing numbers from {own.smallest} to {own.largest}: smallest, usual, largest",
            )
    sizes = {**component.sizes, **choice.sizes}
    cache = component.cache
    if cache and target.cache == "fixed":
        if "total" not in sizes or "length" not in sizes:
            raise PlanError(
                f"`{component.name}` cannot have the fixed cache of `{target.name}`: its family names no sizes"
            )
        capacity = sizes["total"].largest
        cache = msgspec.structs.replace(cache, capacity=capacity)
        length = sizes["length"]
        if length.largest >= capacity:
            sizes["length"] = Span(1, min(length.usual, capacity - 1), capacity - 1)
    return replace(component, cache=cache, sizes=sizes)


def _refuse_precision(choice: ComponentPlan, target: Target) -> None:
    offered = (*target.precisions, *(name for name in target.presets if name not in target.precisions))
    if choice.precision not in PRECISIONS:
        close = get_close_matches(choice.precision, offered, n=1)
        raise PlanError(
            f"`{choice.precision}` is no precision",
            hint=f"did you mean `{close[0]}`?" if close else f"choose from: {', '.join(offered)}",
        )
    if choice.precision not in target.precisions:
        raise PlanError(
            f"`{target.name}` cannot run `{choice.name}` in `{choice.precision}`",
            hint=f"set precision to one of: {', '.join(target.precisions)}",
        )
    if (
        choice.precision.endswith("-weights")
        and target.opset < INT4_OPSET
        and choice.precision not in target.experimental
    ):
        raise PlanError(
            f"`{choice.precision}` needs ONNX operator set {INT4_OPSET}, `{target.name}` reads at most {target.opset}"
        )


def _refuse_unknown(recipe: Recipe, names: tuple[str, ...]) -> None:
    named = [choice.name for choice in recipe.component]
    for name in named:
        if name not in names:
            raise PlanError(f"the model has no component `{name}`", hint=f"it has: {', '.join(names)}")
        if named.count(name) > 1:
            raise PlanError(f"the recipe names the component `{name}` twice")


def _refuse_numbers(recipe: Recipe) -> None:
    """What only shows after the work is done: a bound that nothing meets, or that everything meets."""
    if recipe.calibration:
        if recipe.calibration.samples < 1:
            raise PlanError(f"`calibration.samples` is {recipe.calibration.samples}, expected 1 or more")
        if recipe.calibration.method not in METHODS:
            raise PlanError(
                f"`calibration.method` is `{recipe.calibration.method}`", hint=f"choose from: {', '.join(METHODS)}"
            )
    if recipe.accept:
        cosine, answers, max_abs = recipe.accept.cosine, recipe.accept.answers, recipe.accept.max_abs
        if not -1 <= cosine <= 1:
            raise PlanError(f"`accept.cosine` is {cosine:g}, expected -1 to 1")
        if not 0 <= answers <= 1:
            raise PlanError(f"`accept.answers` is {answers:g}, expected 0 to 1")
        if max_abs is not None and not max_abs >= 0:
            raise PlanError(f"`accept.max_abs` is {max_abs:g}, expected 0 or more")


def _default_accept(choices: dict[str, ComponentPlan]) -> Acceptance:
    precisions = {choice.precision for choice in choices.values()}
    if precisions <= {"float32"}:
        return LOSSLESS
    return HALF if precisions <= {"float32", "float16"} else QUANTIZED
