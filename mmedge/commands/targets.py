"""``mmedge targets``"""

from __future__ import annotations


def targets(*, json: bool = False) -> None:
    """List the devices that bundles can be made for.

    Args:
        json: Print everything that is known of them, as JSON.
    """
    import msgspec

    from mmedge.commands._table import show_table
    from mmedge.core.find import targets as known

    if json:
        print(msgspec.json.format(msgspec.json.encode(known())).decode())
        return
    titles = ("target", "device", "memory", "engines", "precisions")
    rows = (
        (
            "\n".join((target.name, *(f"({alias})" for alias in target.aliases))),
            target.title,
            f"{target.memory_mb / 1024:g} GiB",
            "\n".join(dict.fromkeys(target.backends.values())),
            " ".join(target.precisions),
        )
        for target in known()
    )
    show_table(titles, rows, wrap="precisions")
