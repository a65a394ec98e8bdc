"""Every check of the profiler on itself, one after the other.

    python benchmarks/profiler_checks [--quick] [NAME...]

Each is a script ``pNN_<name>.py`` with ``check(quick)``, which says what it measured, the bound and whether that was
kept. Writes what it found into ``benchmarks/results/profiler_checks.json`` after each one; with --quick it only prints.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "profiler_checks.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="such as p07")
    parser.add_argument("--quick", action="store_true", help="smaller counts")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    found: dict[str, dict[str, object]] = {}
    for script in sorted(HERE.glob("p[0-9][0-9]_*.py")):
        if options.names and not any(script.stem.startswith(name) for name in options.names):
            continue
        began = time.monotonic()
        result = import_module(script.stem).check(options.quick)
        found[script.stem] = {**result, "seconds": round(time.monotonic() - began, 1)}
        print(
            f"{script.stem}: {'passed' if result['passed'] else 'FAILED'} {json.dumps(found[script.stem])}", flush=True
        )
        if not options.quick:
            known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            RESULTS.write_text(json.dumps(dict(sorted((known | found).items())), indent=2) + "\n")
    failed = [name for name, result in found.items() if not result["passed"]]
    print(f"{len(found) - len(failed)} of {len(found)} passed" + (f", not {', '.join(failed)}" if failed else ""))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
