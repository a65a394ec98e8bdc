"""What candidates can be asked to do. A task is one entry: how a row of the user's list becomes an input of it.

Every task is answered by `Pipeline.answer`, or by `Choosing.answer`, with its name, from the bytes of the input's file.
How good its answers are is judged by its metric (`quality.METRICS`), and its stages have the names of `run.STAGES`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from mmedge.core.samples import Sample
from mmedge.errors import InputError
from mmedge.profiling.run import Input


def caption(sample: Sample) -> Input:
    """Describe a picture."""
    return Input(sample.id, "caption", str(sample.image), None, (sample.caption,) if sample.caption else ())


def ask(sample: Sample) -> Input:
    """Answer a question about a picture."""
    if not sample.question:
        raise InputError(f"the sample `{sample.id}` has no question", hint="add a column `question`, or --task caption")
    return Input(sample.id, "ask", str(sample.image), sample.question, (sample.answer,) if sample.answer else ())


def embed(sample: Sample) -> Input:
    """Find the text of a picture among those of all (`profiling.choosing`)."""
    return Input(sample.id, "embed", str(sample.image), sample.caption or sample.answer)


TASKS: MappingProxyType[str, Callable[[Sample], Input]] = MappingProxyType(
    {"caption": caption, "ask": ask, "embed": embed}
)
"""By name, the first one that all bundles can do being the default."""
