"""The page: header, parts in reading order, and a policy that lets nothing in."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from mmedge.profiling.run import Run
from mmedge.profiling.showing.html import (
    answers,
    chance,
    cold,
    layers,
    limits,
    load,
    memory,
    noise,
    ratios,
    roofline,
    sizes,
    soak,
    spread,
    stages,
    tradeoff,
)
from mmedge.profiling.showing.html.candidates import marks_of
from mmedge.profiling.showing.html.figures import Absent, Figure, Part, html_of
from mmedge.profiling.showing.html.header import header_of
from mmedge.profiling.showing.html.text import escape

PARTS = (
    ratios, chance, spread, stages, sizes, tradeoff, answers, memory, limits, cold, noise, load, soak, roofline, layers,
)  # fmt: skip
"""Modules that each make one part of a run."""


def page(run: Run) -> str:
    """The whole report: a file of its own, without scripts, that loads nothing.

    Raises:
        BackendError: matplotlib is not installed.
    """
    parts: list[Part] = [module.figure(run) for module in PARTS]
    marks = marks_of(run)
    css = _css(parts)
    title = escape(f"{', '.join(run.tasks)}: mmedge profile{''.join(f' ({mark})' for mark in marks)}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(css)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{css}</style></head><body><main>"
        f"{header_of(run)}{_contents(parts)}{''.join(html_of(part, marks) for part in parts)}"
        f"</main></body></html>\n"
    )


def _css(parts: list[Part]) -> str:
    sheet = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    rules = {name: css for part in parts if isinstance(part, Figure) for name, css in part.drawing.rules.items()}
    return sheet + "".join(f".{name}{{{css}}}\n" for name, css in rules.items())


def _policy(css: str) -> str:
    """Nothing but this one style sheet, and pictures that are part of the page."""
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def _contents(parts: list[Part]) -> str:
    absent = {part.name: " (not measured)" for part in parts if isinstance(part, Absent)}
    lines = (f'<li><a href="#{part.name}">{escape(part.title)}</a>{absent.get(part.name, "")}</li>' for part in parts)
    return f'<nav aria-label="Contents"><ul>{"".join(lines)}</ul></nav>'
