"""Runs of several tasks: answers to one are other work than those to another, and what lies between is neither."""

from __future__ import annotations

from mmedge.profiling.numbers.quality import task_of
from mmedge.profiling.run import Absolute, Run, Score
from mmedge.profiling.showing.html.candidates import label_of, plot_label
from mmedge.profiling.showing.html.text import short


def tasks_of(run: Run) -> tuple[str, ...]:
    """Those that stand apart: "" alone where there is only one."""
    return run.tasks if len(run.tasks) > 1 else ("",)


def heads_of(run: Run) -> tuple[str, ...]:
    """Titles of the columns of `names_of`."""
    return ("candidate", "task") if len(run.tasks) > 1 else ("candidate",)


def names_of(run: Run, c: int, task: str) -> list[str]:
    """Begin a row."""
    return [label_of(run, c), task] if task else [label_of(run, c)]


def plot_name(run: Run, c: int, task: str) -> str:
    """The same in a plot."""
    return f"{plot_label(run, c)}\n{short(task)}" if task else plot_label(run, c)


def measure_of(run: Run, c: int, task: str, metric: str, stat: str = "median") -> Absolute | None:
    """Of answers to that task."""
    return run.absolute(c, f"{task}.{metric}" if task else metric, stat)


def score_of(run: Run, c: int, task: str) -> Score | None:
    """Of answers to that task."""
    return next((each for each in run.quality if each.c == c and task in ("", task_of(run, each))), None)


def reference_of(run: Run) -> int:
    """The candidate whose answers the others agree with or not."""
    return run.quality[0].reference if run.quality else 0
