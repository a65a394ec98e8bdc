import pytest

from mmedge.core import find
from mmedge.core.recipe import Calibration, ComponentPlan, load_recipe
from mmedge.errors import UsageError

WHOLE = """
name = "scenes-int8"
model = "builtin:scenes"

[[component]]
name = "encoder"
precision = "int8"
keep = ["/head/*"]

[calibration]
files = "scenes"

[accept]
cosine = 0.99
answers = 0.9
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "recipe.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_reads_a_whole_recipe(written):
    recipe = load_recipe(written(WHOLE))
    assert recipe.component == (ComponentPlan("encoder", "int8", keep=("/head/*",)),)
    assert recipe.calibration == Calibration("scenes", samples=128, method="minmax")
    assert recipe.accept is not None and recipe.accept.max_abs is None
    assert (recipe.target, recipe.revision, recipe.precision) == ("cpu", "main", None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WHOLE.replace('name = "encoder"', "name = 3"), "Expected `str`, got `int` - at `$.component[0].name`"),
        (WHOLE.replace("cosine", "cosin"), "unknown field `cosin` - at `$.accept`"),
        (WHOLE.replace("cosine = 0.99", ""), "missing required field `cosine` - at `$.accept`"),
        (WHOLE.replace('"builtin:scenes"', "builtin:scenes"), "line 3"),
        ("", "missing required field `name`"),
        (WHOLE + WHOLE, "twice"),
        (b"name = '\xff'", "utf-8"),
    ],
)
def test_a_mistake_is_named_with_its_place(written, text, reason):
    path = written(text)
    with pytest.raises(UsageError) as refused:
        load_recipe(path)
    assert str(path) in refused.value.message and reason in refused.value.message
    assert refused.value.hint == "`mmedge recipes` lists recipes that work"


def test_a_recipe_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the recipe `.*/missing.toml`: No such file or directory"):
        load_recipe(tmp_path / "missing.toml")


@pytest.mark.parametrize("path", sorted(find.data("recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_that_ships_is_named_as_its_file_and_has_a_title_and_a_known_target(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem and recipe.title
    find.target(recipe.target)
