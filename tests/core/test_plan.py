from dataclasses import replace
from types import SimpleNamespace

import msgspec.structs
import pytest

from mmedge.core import find
from mmedge.core.family import Component
from mmedge.core.plan import HALF, LOSSLESS, QUANTIZED, make_plan
from mmedge.core.ports import CacheShape, Port, Span
from mmedge.core.recipe import PRECISIONS, Acceptance, Calibration, ComponentPlan, Recipe
from mmedge.errors import PlanError

CPU, JETSON, NPU, PI = (find.target(name) for name in ("cpu", "jetson", "intel-npu", "raspberry-pi-5"))
PIXELS, IDS = Port("pixels", "float32", (1, 3, 8, 8)), Port("input_ids", "int64", (1, "length"))
LOGITS, CACHE = Port("logits", "float32", (1, 1, 9)), CacheShape(layers=1, heads=1, head_dim=4)
SIZES = {"length": Span(1, 4, 31), "total": Span(1, 8, 32)}
COMPONENTS = (
    Component("encoder", lambda model, pixels: pixels, (PIXELS,), (PIXELS,)),
    Component("decoder", lambda model, ids: ids, (IDS, PIXELS), (LOGITS,), CACHE, SIZES),
)
SHORT = {"total": Span(1, 8, 16)}
FAMILY = SimpleNamespace(name="small", components=lambda config: COMPONENTS, reads=lambda config: ("image", "text"))
PICTURES = Calibration(files="pictures")


def plan(target=CPU, **fields):
    return make_plan(Recipe(name="small", model="owner/small", **fields), target, FAMILY, {})


def refusal(target=CPU, **fields) -> PlanError:
    with pytest.raises(PlanError) as caught:
        plan(target, **fields)
    assert caught.value.exit_code == 2
    return caught.value


def precisions(made) -> dict[str, str]:
    return {name: choice.precision for name, choice in made.choices.items()}


def test_a_precision_is_that_of_every_component():
    for precision in ("float32", "float16", "int8-weights", "int4-weights"):
        assert precisions(plan(precision=precision)) == {"encoder": precision, "decoder": precision}


def test_a_preset_gives_towers_and_decoders_their_own_precision():
    made = plan(precision="int8", calibration=PICTURES)
    assert precisions(made) == {"encoder": "int8", "decoder": "int8-weights"}
    assert precisions(plan(JETSON, precision="int8", calibration=PICTURES)) == {"encoder": "int8", "decoder": "float16"}
    assert made.needs_calibration and not plan(precision="int8-weights").needs_calibration


def test_the_recipe_names_components_apart():
    choice = ComponentPlan("decoder", "int4-weights", keep=("*head*",))
    made = plan(component=(choice,))
    assert precisions(made) == {"encoder": "float32", "decoder": "int4-weights"} and made.choices["decoder"] is choice


@pytest.mark.parametrize(
    ("target", "fields", "message", "hint"),
    [
        (CPU, {"precision": "int9"}, "`int9` is no precision", "did you mean `int8`?"),
        (CPU, {"precision": ""}, "`` is no precision", "choose from: float32, "),
        (CPU, {"precision": "bfloat16"}, "`bfloat16` is no precision", "did you mean `float16`?"),
        (PI, {"precision": "float16"}, "`raspberry-pi-5` cannot run `encoder` in `float16`", "float32, int8, "),
        (NPU, {"precision": "float32"}, "`intel-npu` cannot run `encoder` in `float32`", "set precision to one of"),
        (JETSON, {"precision": "int8-weights"}, "`jetson-orin-nano` cannot run `encoder` in `int8-weights`", "float32"),
        (
            CPU,
            {"component": (ComponentPlan("decoder", "float32", sizes={"width": Span(1, 2, 3)}),)},
            "`decoder` has no size `width` that varies",
            "it has: length, total",
        ),
        (
            CPU,
            {"component": (ComponentPlan("decoder", "float32", sizes={"total": Span(1, 8, 33)}),)},
            "`total` of `decoder` cannot be 1, 8, 33",
            "three growing numbers from 1 to 32: smallest, usual, largest",
        ),
        (CPU, {"precision": "int8"}, "static int8 takes its ranges from calibration data", "--calibration FOLDER"),
        (
            CPU,
            {"component": (ComponentPlan("decoder", "int8"),), "calibration": PICTURES},
            "static int8 slows `decoder` down",
            "set its precision to `int8-weights`",
        ),
        (
            CPU,
            {"component": (ComponentPlan("vision", "float32"),)},
            "the model has no component `vision`",
            "it has: encoder, decoder",
        ),
        (
            CPU,
            {"component": (ComponentPlan("encoder", "float32"), ComponentPlan("encoder", "float16"))},
            "the recipe names the component `encoder` twice",
            None,
        ),
        (CPU, {"family": "whisper"}, "the recipe is for a `whisper` model, the checkpoint is `small`", None),
        (CPU, {"calibration": Calibration("p", samples=0)}, "`calibration.samples` is 0, expected 1 or more", None),
        (CPU, {"calibration": Calibration("p", samples=-1)}, "`calibration.samples` is -1, expected 1 or more", None),
        (
            CPU,
            {"calibration": Calibration("p", method="magic")},
            "`calibration.method` is `magic`",
            "choose from: minmax, percentile, entropy",
        ),
        (CPU, {"accept": Acceptance(1.1, 0.5)}, "`accept.cosine` is 1.1, expected -1 to 1", None),
        (CPU, {"accept": Acceptance(0.9, 1.5)}, "`accept.answers` is 1.5, expected 0 to 1", None),
        (CPU, {"accept": Acceptance(0.9, float("nan"))}, "`accept.answers` is nan, expected 0 to 1", None),
        (CPU, {"accept": Acceptance(0.9, 0.5, -1.0)}, "`accept.max_abs` is -1, expected 0 or more", None),
    ],
)
def test_what_cannot_be_made_is_refused(target, fields, message, hint):
    error = refusal(target, **fields)
    assert error.message.startswith(message)
    assert error.hint == hint or (hint and hint in error.hint)


def test_a_target_with_a_fixed_cache_gets_one_as_long_as_the_recipe_says():
    whole, short = plan(JETSON), plan(JETSON, component=(ComponentPlan("decoder", "float16", sizes=SHORT),))
    assert [made.components[1].cache.capacity for made in (whole, short, plan())] == [32, 16, 0]
    assert short.components[1].sizes == {"length": Span(1, 4, 15), "total": Span(1, 8, 16)}


def test_a_fixed_cache_needs_to_know_how_long_it_may_get():
    bare = SimpleNamespace(name="small", components=lambda config: (replace(COMPONENTS[1], sizes={}),))
    with pytest.raises(PlanError, match="cannot have the fixed cache of `jetson-orin-nano`"):
        make_plan(Recipe(name="small", model="owner/small"), JETSON, bare, {})


def test_where_nothing_is_said_the_target_chooses_the_precision():
    assert precisions(plan(JETSON)) == {"encoder": "float16", "decoder": "float16"}
    assert precisions(plan()) == {"encoder": "float32", "decoder": "float32"}


def test_weight_only_precisions_need_a_new_operator_set():
    old = msgspec.structs.replace(CPU, opset=20)
    assert "needs ONNX operator set 21, `cpu` reads at most 20" in refusal(old, precision="int4-weights").message


@pytest.mark.parametrize("target", find.targets(), ids=lambda target: target.name)
def test_every_target_offers_precisions_that_can_be_planned(target):
    for precision in (*target.precisions, *target.presets):
        if precision == "int8" and precision not in target.presets:
            continue
        made = plan(target, precision=precision, calibration=PICTURES)
        assert set(precisions(made).values()) <= set(target.precisions)
    assert set(target.precisions) <= set(PRECISIONS)


@pytest.mark.parametrize(
    ("precision", "bounds"),
    [("float32", LOSSLESS), ("float16", HALF), ("int8", QUANTIZED), ("int4-weights", QUANTIZED)],
)
def test_without_bounds_of_its_own_a_recipe_is_judged_by_its_coarsest_precision(precision, bounds):
    assert plan(precision=precision, calibration=PICTURES).accept == bounds
    assert plan(component=(ComponentPlan("decoder", "int4-weights"),)).accept == QUANTIZED
    own = Acceptance(0.5, 0.5)
    assert plan(precision=precision, calibration=PICTURES, accept=own).accept == own
