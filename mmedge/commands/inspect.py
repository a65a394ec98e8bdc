"""``mmedge inspect``"""

from __future__ import annotations

from pathlib import Path


def inspect(bundle: Path, /, *, json: bool = False) -> None:
    """Show what is inside a bundle.

    Args:
        bundle: A folder that `mmedge export` wrote.
        json: Print the whole manifest as JSON.
    """
    from textwrap import fill

    import msgspec

    from mmedge.commands._table import show_table
    from mmedge.core.bundle import open_bundle

    opened = open_bundle(bundle)
    manifest = opened.manifest
    if json:
        print(msgspec.json.format(msgspec.json.encode(manifest)).decode())
        return
    print(f"{manifest.name}  {manifest.title}".rstrip())
    print(f"model    {manifest.model} ({manifest.family})")
    print(f"target   {manifest.target.name}: {manifest.target.title}")
    print(f"can      {', '.join(manifest.tasks)}")
    print(f"size     {sum(file.size for file in manifest.files.values()) / 1e6:.1f} MB in {len(manifest.files)} files")
    print(f"digest   {opened.digest}\n")
    agreed = {seen.component: seen for seen in manifest.agreement}
    rows = []
    for graph in manifest.graphs:
        size = sum(file.size for name, file in manifest.files.items() if name.startswith(graph.file))
        seen = agreed[graph.component]
        backend = manifest.target.backends[graph.role]
        numbers = f"{size / 1e6:.1f} MB", f"{seen.max_abs:.2g}", f"{seen.cosine:.6f}"
        rows.append((graph.component, graph.precision, backend, *numbers))
    titles = ("graph", "precision", "engine", "size", "max abs", "cosine to torch")
    show_table(titles, rows, wrap="cosine to torch")
    print(f"\nanswers equal to torch: {manifest.answers.equal} of {manifest.answers.total}")
    print(f"pre-processing against the checkpoint's: max abs {manifest.preprocess_max_abs:.2g} before normalising")
    for sample in manifest.golden:
        asked = f" {sample.question!r}" if sample.question else ""
        answer = f": {sample.text.strip()}" if sample.tokens else ""
        print(f"{sample.path}: {sample.task}{asked}{answer}")
    for warning in manifest.warnings:
        print(fill(f"warning: {warning}", 80, subsequent_indent="  ", break_on_hyphens=False))
