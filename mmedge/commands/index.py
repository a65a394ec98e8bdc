"""``mmedge index``"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmedge.commands._answer import Output
from mmedge.commands._shown_answers import json_line
from mmedge.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from mmedge.commands._progress import Bar
    from mmedge.core.family import Prompt
    from mmedge.runtime.encoder import Encoder
    from mmedge.runtime.index import Index, Item

BATCH = 32
"""Things that are embedded before they are written."""
SAMPLED = 1024
"""Vectors that tell what rounding costs."""
QUERIES = 128
COUNTS = (1, 5, 10)
MANY = 200_000
"""Things from which on an exact search takes long: see `benchmarks/search.py`."""


def index(
    bundle: Path,
    /,
    *sources: Path,
    output: Output = None,
    precision: Literal["float32", "float16", "int8"] = "float16",
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
        output: The index, made or brought up to date: what changed is embedded again, what is gone is forgotten.
        precision: How vectors are kept.
        approximate: Make a graph of neighbours beside the index, which is searched faster and misses little; auto is
            from 200,000 things on.
        skip_bad: Report files that cannot be used and go on; else the first of them is an error.
        backend: Run every graph on this engine instead of the target's choice.
        threads: CPU threads; 0 means all cores.
        json: One JSON object that tells what was done.
    """
    from mmedge.core.bundle import open_bundle
    from mmedge.runtime.encoder import open_encoder
    from mmedge.runtime.index import About, make_index

    if not output:
        raise UsageError("no index is named", hint="mmedge index BUNDLE photos -o photos.index")
    if not sources:
        raise UsageError("nothing is named that could be indexed", hint="mmedge index BUNDLE photos -o photos.index")
    opened = open_bundle(bundle)
    with open_encoder(opened, backend=backend, threads=threads) as encoder:
        about = About(opened.digest, str(bundle.absolute()), encoder.width, precision)
        with make_index(output, about) as made:
            indexing = Indexing(encoder, made, skip_bad=skip_bad)
            indexing.run(sources)
            indexing.tell(_bring_near(made, approximate), json)
    return 0


class Indexing:
    """Brings an index up to date."""

    def __init__(self, encoder: Encoder, made: Index, *, skip_bad: bool) -> None:
        self.encoder = encoder
        self.made = made
        self.skip_bad = skip_bad
        self.added = self.kept = self.gone = 0
        self.bad: list[str] = []
        self._sample: list[np.ndarray] = []

    def run(self, sources: Sequence[Path]) -> None:
        """Add what is new and forget what is gone."""
        from mmedge.commands._progress import Bar
        from mmedge.runtime.collection import items_of, lies_in

        known = self.made.states()
        items = list(items_of(sources, self.encoder.modalities))
        if not items:
            raise InputError(f"there is nothing to index in {', '.join(f'`{source}`' for source in sources)}")
        new = [item for item in items if known.get((item.name, item.modality)) != item.state]
        gone = [key for key in known.keys() - {(item.name, item.modality) for item in items} if lies_in(key, sources)]
        with Bar(len(new)) as bar:
            for batch in _batches(new):
                self._add(batch, bar)
        self.made.remove(gone)
        self.gone, self.kept = len(gone), len(items) - len(new)

    def _add(self, batch: Sequence[Item], bar: Bar) -> None:
        """Things of one modality."""
        used: list[Item] = []
        prompts: list[Prompt] = []
        for item in batch:
            try:
                prompts.append(self.encoder.prompt(item.modality, item.name))
                used.append(item)
            except InputError as error:
                bar.clear()
                self._refuse(item, error)
            bar.step(item.name)
        embeddings = self.encoder.run(batch[0].modality, prompts)
        self.made.add(used, embeddings)
        self.added += len(used)
        if self.added <= SAMPLED:
            self._sample.append(embeddings)

    def _refuse(self, item: Item, error: InputError) -> None:
        if not self.skip_bad:
            raise InputError(error.message, hint="mend or remove it, or go on without such with --skip-bad") from error
        self.bad.append(item.name)
        print(f"skipped: {error.message}", file=sys.stderr)

    def tell(self, near: float | None, json: bool) -> None:
        """What was done; of a graph of neighbours the share of the first ten that it finds."""
        recalls = self._recalls()
        if json:
            done = {"added": self.added, "kept": self.kept, "forgotten": self.gone, "skipped": self.bad}
            print(json_line({**done, "recall": recalls, "near_recall_at_10": near}), flush=True)
            return
        done_words = f"added {self.added}, kept {self.kept}, forgot {self.gone}, skipped {len(self.bad)}"
        print(done_words, file=sys.stderr)
        if recalls:
            told = ", ".join(f"{100 * share:.1f} % of the first {count}" for count, share in recalls.items())
            print(f"{self.made.about.precision} finds {told} of float32", file=sys.stderr)
        if near is not None:
            print(f"the graph of neighbours finds {100 * near:.1f} % of the first 10 of all", file=sys.stderr)

    def _recalls(self) -> dict[int, float]:
        """What rounding costs among those that were added; nothing to tell where nothing is rounded, or of a few."""
        import numpy as np

        from mmedge.runtime.index import decoded, encoded, recall

        about, sampled = self.made.about, sum(map(len, self._sample))
        if about.precision == "float32" or sampled < 2 * max(COUNTS):
            return {}
        rows = np.concatenate(self._sample)
        queries, exact = np.split(rows, [min(QUERIES, sampled // 2)])  # each would find itself
        kept = decoded(encoded(exact, about.precision), about)
        return {count: recall(exact, kept, queries, count) for count in COUNTS}


def _bring_near(made: Index, approximate: str) -> float | None:
    """The share of the nearest that the graph of neighbours finds; None where there is to be none."""
    from importlib.util import find_spec

    from mmedge.commands._progress import Bar
    from mmedge.runtime.near import bring_up_to_date, near_file

    count = len(made.ids())
    if approximate == "never" or (approximate == "auto" and count < MANY):
        near_file(made.path).unlink(missing_ok=True)
        return None
    if approximate == "auto" and not find_spec("usearch"):
        print(f"note: a search compares all {count}: pip install 'mmedge[search]' makes it faster", file=sys.stderr)
        return None
    with Bar(count) as bar:
        return bring_up_to_date(made, bar.step)


def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for _, alike in groupby(items, key=lambda item: item.modality):
        waiting = list(alike)
        for begin in range(0, len(waiting), BATCH):
            yield waiting[begin : begin + BATCH]
