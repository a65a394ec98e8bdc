"""``mmedge recipes``"""

from __future__ import annotations


def recipes(*, json: bool = False) -> None:
    """List the recipes that ship with mmedge.

    Args:
        json: Print them whole, as JSON.
    """
    import msgspec

    from mmedge.commands._table import show_table
    from mmedge.core.find import data
    from mmedge.core.recipe import load_recipe

    known = [load_recipe(path) for path in sorted(data("recipes").glob("*.toml"))]
    if json:
        print(msgspec.json.format(msgspec.json.encode(known)).decode())
        return
    rows = ((each.name, each.model, each.target, each.precision or "-") for each in known)
    show_table(("recipe", "model", "target", "precision"), rows, wrap="model")
