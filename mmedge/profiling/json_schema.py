"""The JSON Schema of a run, for programs that are not ours; ``python -m mmedge.profiling.json_schema`` writes it anew.

It is made from `Run`, and stricter than `keep.read_run`: a key that is not in it is a mistake, unless it lies at the
top and begins with ``x-``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from mmedge.profiling.run import SCHEMA, Run

FILE = Path(__file__).with_name("schema") / f"{SCHEMA.replace('/', '.')}.json"


def json_schema() -> dict[str, Any]:
    """As it is now."""
    made = msgspec.json.schema(Run)
    kinds: dict[str, Any] = made["$defs"]
    for kind in kinds.values():
        kind["additionalProperties"] = False
    run = kinds["Run"]
    run["properties"]["schema"] = {"const": SCHEMA}
    del run["properties"]["notes"]  # in a file each note is a key of its own
    run["patternProperties"] = {"^x-": {}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": SCHEMA, **made}


def encoded() -> bytes:
    """As it is in `FILE`."""
    return msgspec.json.format(msgspec.json.encode(json_schema()), indent=1) + b"\n"


if __name__ == "__main__":
    from mmedge.core.whole_file import write_whole

    write_whole(FILE, encoded())
