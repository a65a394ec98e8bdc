"""``mmedge verify``"""

from __future__ import annotations

import sys
from pathlib import Path


def verify(bundle: Path, /, *, backend: str | None = None, threads: int = 0, json: bool = False) -> int:
    """Check every file of a bundle and replay its golden samples on this device.

    Args:
        bundle: A folder that `mmedge export` wrote.
        backend: Replay on this engine instead of the target's choice.
        threads: CPU threads; 0 means all cores.
        json: Print every check as JSON.
    """
    import msgspec

    from mmedge.commands._table import show_table
    from mmedge.core.bundle import open_bundle
    from mmedge.errors import QualityError
    from mmedge.runtime.verify import verify as run

    live = sys.stderr.isatty()

    def progress(line: str) -> None:
        if live:
            print(f"{line[:78]:<78}", end="\r", file=sys.stderr, flush=True)

    found = run(open_bundle(bundle), backend=backend, threads=threads, progress=progress)
    if live:
        print(" " * 78, end="\r", file=sys.stderr)
    if json:
        print(msgspec.json.format(msgspec.json.encode({"passed": found.passed, **msgspec.to_builtins(found)})).decode())
        return 0 if found.passed else QualityError.exit_code
    rows = (
        (each.sample, each.what, f"{each.value:.6g}", f"{each.bound:.6g}", _verdict(each.passed, each.note))
        for each in found.checks
    )
    show_table(("sample", "what", "value", "bound", "verdict"), rows, wrap="verdict")
    failed = [each for each in found.checks if not each.passed]
    if failed:
        first = failed[0]
        raise QualityError(
            f"{len(failed)} of {len(found.checks)} checks failed; first `{first.what}` of {first.sample}: "
            f"{first.value:.6g}, the bound is {first.bound:.6g}",
            hint="try another --backend; if only one fails, that engine computes this graph wrongly here",
        )
    engines = ", ".join(dict.fromkeys(found.backends.values()))
    print(f"{found.files} files whole, {len(found.checks)} checks passed on {engines}")
    return 0


def _verdict(passed: bool, note: str) -> str:
    return ("ok" if passed else "FAILED") + (f" ({note})" if note else "")
