"""What `mmedge check` prints of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmedge.core.target import Target
    from mmedge.export.check.findings import Finding, Findings, Headroom, Sum


def check_files(folder: Path, target: str | None, length: int | None, json: bool) -> int:
    """Check the bundle in ``folder``; 0 without errors, otherwise the exit code of a bad bundle."""
    from mmedge.core import find
    from mmedge.core.bundle import open_bundle
    from mmedge.errors import BundleError
    from mmedge.needs import needs

    with needs("export"):
        from mmedge.export.check.run import check_bundle

    bundle = open_bundle(folder)
    chosen = find.target(target) if target else bundle.manifest.target
    findings = check_bundle(bundle, chosen, length)
    (_print_json if json else _show)(bundle.manifest.name, chosen, findings)
    return BundleError.exit_code if findings.of("error") else 0


def _print_json(name: str, target: Target, findings: Findings) -> None:
    import msgspec

    found = {
        "bundle": name,
        "target": target,
        "graphs": findings.graphs,
        "findings": findings.found,
        "memory": {
            "build_mib": round(findings.memory.build_mib, 1),
            "run_mib": round(findings.memory.run_mib, 1),
            "build": findings.memory.build,
            "run": findings.memory.run,
        },
        "float16": findings.float16,
        "summary": findings.summary,
    }
    print(msgspec.json.format(msgspec.json.encode(found)).decode())


def _show(name: str, target: Target, findings: Findings) -> None:
    from textwrap import fill

    from mmedge.commands._table import show_table

    print(f"bundle  {name}: {', '.join(findings.graphs)}")
    print(f"target  {target.name}: {target.title}\n")
    stacks = tuple(stack.name for stack in findings.stacks)
    for severity in ("error", "warning", "note"):
        if rows := [_row(group, stacks) for group in _groups(findings.of(severity))]:
            show_table((f"{severity}s", ""), rows, wrap="")
            print()
    _show_float16(findings)
    _show_memory("to build", findings.memory.build, findings.memory.build_mib, target)
    _show_memory("to run", findings.memory.run, findings.memory.run_mib, target)
    print(fill(findings.summary, 80, break_on_hyphens=False))


def _show_float16(findings: Findings) -> None:
    from mmedge.commands._table import show_table
    from mmedge.export.check.ranges import SAFE

    if findings.float16:
        title = f"of {SAFE:,.0f} that are safe"
        rows = [(each.component, f"{each.largest:,.0f}", _seen(each)) for each in findings.float16]
        show_table(("float16", "largest", title), rows, wrap=title)
        print()


def _seen(headroom: Headroom) -> str:
    return f"{headroom.recorded} of {headroom.values} values recorded, the largest at {headroom.node}"


def _groups(found: tuple[Finding, ...]) -> list[list[Finding]]:
    """Findings that differ only in the node, in the order of the first of each."""
    groups: dict[object, list[Finding]] = {}
    for each in found:
        groups.setdefault((each.check, each.component, each.hint, each.stacks), []).append(each)
    return list(groups.values())


def _row(group: list[Finding], stacks: tuple[str, ...]) -> tuple[str, str]:
    first, more = group[0], len(group) - 1
    lines = [f"{first.component}: {first.message}" if first.component else first.message]
    if first.node:
        lines.append(f"at {first.node}" + (f" and {more} more" if more else ""))
    if first.module and not first.node.startswith(first.module):
        lines.append(f"in {first.module}")
    if first.stacks != stacks:
        lines.append(f"only {', '.join(first.stacks)}")
    return first.check, "\n".join([*lines, f"hint: {first.hint}"])


def _show_memory(what: str, parts: tuple[Sum, ...], total: float, target: Target) -> None:
    from mmedge.commands._table import show_table

    if not parts:
        return
    rows = [(f"{part.mib:,.1f}", part.what, part.how) for part in parts]
    rows.append((f"{total:,.1f}", f"of {target.memory_mb:,}", ""))
    show_table(("MiB", what, ""), rows, wrap="")
    print()
