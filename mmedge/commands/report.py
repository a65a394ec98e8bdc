"""``mmedge report``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmedge.profiling.run import Run


def report(
    run: Path,
    /,
    *,
    html: Path | None = None,
    trace: Path | None = None,
    csv: Path | None = None,
    force: bool = False,
) -> None:
    """Make a page of a run that `mmedge profile` kept, on any machine; or a trace, or a table.

    Without an option the page is written beside the run, under its name with .html. The paths of what was written are
    printed.

    Args:
        run: What `mmedge profile -o` wrote.
        html: One file for any browser, which needs no network.
        trace: A trace that Perfetto (ui.perfetto.dev) and chrome://tracing open.
        csv: One row for every answer.
        force: Replace files that are there already.
    """
    from mmedge.core.whole_file import write_whole
    from mmedge.profiling.keep import read_run

    wanted = {"html": html, "trace": trace, "csv": csv}
    if not any(wanted.values()):
        wanted["html"] = _beside(run)
    files = {kind: path for kind, path in wanted.items() if path}
    measured = read_run(run)
    check_outputs(files, run, force)
    for kind, path in files.items():
        write_whole(path, content(kind, measured))
        print(path)


def _beside(run: Path) -> Path:
    """``run.json`` and ``run.json.gz`` become ``run.html``."""
    plain = run.with_suffix("") if run.suffix == ".gz" else run
    return plain.with_suffix(".html")


def check_outputs(files: dict[str, Path], taken: Path | None, force: bool) -> None:
    """Refuse before the work starts; ``taken`` is where the run itself is.

    Raises:
        UsageError: a file cannot be written.
        BackendError: there is nothing to draw with.
    """
    from mmedge.core.whole_file import check_place
    from mmedge.errors import UsageError
    from mmedge.needs import needs

    places = [taken.resolve()] if taken else []
    for kind, path in files.items():
        check_place(path)
        if path.resolve() in places:
            raise UsageError(f"`{path}` is named twice", hint=f"give --{kind} a name of its own")
        places.append(path.resolve())
        if path.exists() and not force:
            raise UsageError(f"`{path}` is there already", hint="name another file, or add --force")
    if "html" in files:
        with needs("profile"):
            import matplotlib  # noqa: F401


def content(kind: str, run: Run) -> bytes:
    """Of the file that is called ``html``, ``trace`` or ``csv`` on the command line."""
    import msgspec

    from mmedge.profiling.showing.chrome_trace import trace_of
    from mmedge.profiling.showing.html.page import page
    from mmedge.profiling.showing.rows import rows_of

    if kind == "trace":
        return msgspec.json.encode(trace_of(run))
    return (page(run) if kind == "html" else rows_of(run)).encode()
