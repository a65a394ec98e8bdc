"""``mmedge index``"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmedge.commands._answer import Output
from mmedge.commands._shown_answers import json_line
from mmedge.core.names import readable
from mmedge.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from mmedge.commands._progress import Bar
    from mmedge.core.family import Prompt
    from mmedge.runtime.collection import Found
    from mmedge.runtime.encoder import Encoder
    from mmedge.runtime.index import Index, Item

BATCH = 32
"""Things that are embedded before they are written."""
SAMPLED = 1024
"""Vectors that tell what rounding costs."""
QUERIES = 128
COUNTS = (1, 5, 10)
SHOWN = 60
"""Characters of a text that tell which it is."""
MANY = 200_000
"""Things from which on an exact search takes long: see `benchmarks/search.py`."""


def index(
    bundle: Path,
    /,
    *sources: Path,
    output: Output = None,
    precision: Literal["float32", "float16", "int8"] | None = None,
    approximate: Literal["auto", "always", "never"] = "auto",
    skip_bad: bool = False,
    backend: str | None = None,
    threads: int = 0,
    json: bool = False,
) -> int:
    """Embed pictures, sounds or texts for `mmedge search`; what is in the index already is not embedded again.

    Args:
        bundle: A folder that `mmedge export` wrote, of a model that embeds.
        sources: Folders, files, or text files (.txt) of which each line is a text.
        output: The index, made or brought up to date: what changed is embedded again, what is gone from the sources is
            forgotten.
        precision: How vectors are kept; as the index has them, float16 in a new one.
        approximate: Make a graph of neighbours beside the index, which is searched faster and misses little; auto is
            from 200,000 things on, and where there is one.
        skip_bad: Report files that cannot be used and go on; else the first of them is an error.
        backend: Run every graph on this engine instead of the target's choice.
        threads: CPU threads; 0 means all cores.
        json: One JSON object that tells what was done.
    """
    from mmedge.core.bundle import open_bundle
    from mmedge.core.whole_file import check_place
    from mmedge.runtime.collection import items_of
    from mmedge.runtime.encoder import embedded_by, open_encoder
    from mmedge.runtime.index import About, make_index
    from mmedge.runtime.model import check_task
    from mmedge.runtime.near import drop_near

    if not output:
        raise UsageError("no index is named", hint="mmedge index BUNDLE photos -o photos.index")
    if not sources:
        raise UsageError("nothing is named that could be indexed", hint="mmedge index BUNDLE photos -o photos.index")
    opened = open_bundle(bundle)
    check_task("embed", opened.manifest.tasks)
    check_place(output)
    bad = Bad(skip=skip_bad)
    found = items_of(sources, embedded_by(opened.manifest.graphs), bad.refuse)
    if not found:
        raise InputError(f"there is nothing to index in {', '.join(f'`{source}`' for source in sources)}")
    with open_encoder(opened, backend=backend, threads=threads) as encoder:
        about = About(opened.digest, readable(str(bundle.absolute())), encoder.width, precision or "float16")
        with make_index(output, about, as_it_is=precision is None) as made:
            indexing = Indexing(encoder, made, bad)
            near = _wants_near(made, approximate, found)
            indexing.run(found, sources)
            if approximate == "never":
                drop_near(made)
            indexing.tell(_bring_near(made) if near else None, json)
    return 0


class Bad:
    """What cannot be used: each is told of and passed over, or the first is the end."""

    def __init__(self, *, skip: bool) -> None:
        self.skip = skip
        self.names: list[str] = []

    def refuse(self, name: str, error: InputError) -> None:
        if not self.skip:
            hint = "mend or remove it, or go on without such with --skip-bad"
            raise InputError(error.message, hint=hint) from error
        self.names.append(name)
        print(f"skipped: {error.message}", file=sys.stderr)


class Indexing:
    """Brings an index up to date."""

    def __init__(self, encoder: Encoder, made: Index, bad: Bad) -> None:
        self.encoder = encoder
        self.made = made
        self.bad = bad
        self.added = self.kept = self.gone = 0
        self._useless: list[tuple[str, str]] = []
        self._sample: list[np.ndarray] = []

    def run(self, found: Sequence[Found], sources: Sequence[Path]) -> None:
        """Add what is new and forget what is gone, or cannot be used as it is now."""
        from mmedge.commands._progress import Bar
        from mmedge.runtime.collection import gone

        known, unseen = self.made.states(), tuple(self.bad.names)
        new = [each for each in found if known.get(each.key) != each.item.state]
        with Bar(len(new)) as bar:
            for batch in _batches(new):
                self._add(batch, bar)
        lost = gone(known, {each.key for each in found}, sources, unseen)
        lost += [key for key in self._useless if key in known]
        self.made.remove(lost)
        self.gone, self.kept = len(lost), len(found) - len(new)

    def _add(self, batch: Sequence[Found], bar: Bar) -> None:
        """Things of one modality."""
        used: list[Item] = []
        prompts: list[Prompt] = []
        for each in batch:
            try:
                prompts.append(self.encoder.prompt(each.item.modality, each.source))
                used.append(each.item)
            except InputError as error:
                bar.clear()
                self.bad.refuse(each.item.name, _about(each.item, error))
                self._useless.append(each.key)
            bar.step(each.item.name)
        embeddings = self.encoder.run(batch[0].item.modality, prompts)
        self.made.add(used, embeddings)
        self.added += len(used)
        if self.added <= SAMPLED:
            self._sample.append(embeddings)

    def tell(self, near: float | None, json: bool) -> None:
        """What was done; of a graph of neighbours the share of the first ten that it finds."""
        recalls = self._recalls()
        if json:
            done = {"added": self.added, "kept": self.kept, "forgotten": self.gone, "skipped": self.bad.names}
            print(json_line({**done, "recall": recalls, "near_recall_at_10": near}), flush=True)
            return
        done_words = f"added {self.added}, kept {self.kept}, forgot {self.gone}, skipped {len(self.bad.names)}"
        print(done_words, file=sys.stderr)
        if recalls:
            told = ", ".join(f"{100 * share:.1f} % of the first {count}" for count, share in recalls.items())
            print(f"{self.made.about.precision} finds {told} of float32", file=sys.stderr)
        if near is not None:
            print(f"the graph of neighbours finds {100 * near:.1f} % of the first 10 of all", file=sys.stderr)

    def _recalls(self) -> dict[int, float]:
        """What rounding costs among those that were added; nothing to tell where nothing is rounded, or of a few."""
        import numpy as np

        from mmedge.runtime.vectors import decoded, encoded, recall

        about, sampled = self.made.about, sum(map(len, self._sample))
        if about.precision == "float32" or sampled < 2 * max(COUNTS):
            return {}
        rows = np.concatenate(self._sample)
        queries, exact = np.split(rows, [min(QUERIES, sampled // 2)])  # each would find itself
        kept = decoded(encoded(exact, about.precision), about.precision, about.width)
        return {count: recall(exact, kept, queries, count) for count in COUNTS}


def _about(item: Item, error: InputError) -> InputError:
    """What is wrong with a text does not say with which."""
    if item.modality != "text":
        return error
    begin = item.name if len(item.name) <= SHOWN else f"{item.name[:SHOWN]}..."
    return InputError(f"`{begin}` of `{item.state}`: {error.message}")


def _wants_near(made: Index, approximate: str, found: Sequence[Found]) -> bool:
    """Whether there is to be a graph of neighbours; refused now where it cannot be made, before the work."""
    from importlib.util import find_spec

    from mmedge.runtime.near import check_near, has_own

    count = len(made.states().keys() | {each.key for each in found})
    if approximate == "never" or (approximate == "auto" and count < MANY and not has_own(made)):
        return False
    if approximate == "auto" and not find_spec("usearch"):
        print(f"note: a search compares all {count}: pip install 'mmedge[search]' makes it faster", file=sys.stderr)
        return False
    check_near(made)
    return True


def _bring_near(made: Index) -> float:
    """The share of the nearest that the graph of neighbours finds."""
    from mmedge.commands._progress import Bar
    from mmedge.runtime.near import bring_up_to_date

    with Bar(len(made.ids())) as bar:
        return bring_up_to_date(made, bar.step)


def _batches(found: Sequence[Found]) -> Iterator[Sequence[Found]]:
    for _, alike in groupby(found, key=lambda each: each.item.modality):
        waiting = list(alike)
        for begin in range(0, len(waiting), BATCH):
            yield waiting[begin : begin + BATCH]
