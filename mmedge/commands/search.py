"""``mmedge search``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmedge.commands._shown_answers import for_terminal, json_line
from mmedge.errors import BackendError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from mmedge.runtime.index import About, Hit, Index
    from mmedge.runtime.near import Near

NAMES = {"text": "a text", "image": "a picture", "audio": "a sound"}


def search(
    index: Path,
    text: str | None = None,
    /,
    *,
    image: str | None = None,
    audio: str | None = None,
    top: int = 10,
    modality: str | None = None,
    exact: bool = False,
    bundle: Path | None = None,
    backend: str | None = None,
    threads: int = 0,
    json: bool = False,
) -> int:
    """Find what in an index is most like a text, a picture or a sound.

    Args:
        index: A file that `mmedge index` wrote.
        text: What to look for, in words.
        image: What to look for, as a picture.
        audio: What to look for, as a sound.
        top: How many are told.
        modality: Look among pictures (image), sounds (audio) or texts (text) alone.
        exact: Compare all, also where the index has a graph of neighbours.
        bundle: The bundle that the index was made by, where that is elsewhere now.
        backend: Run every graph on this engine instead of the target's choice.
        threads: CPU threads; 0 means all cores.
        json: One JSON object per hit: name, modality, cosine.
    """
    from mmedge.core.bundle import open_bundle
    from mmedge.runtime.encoder import open_encoder, width_of
    from mmedge.runtime.index import check_bundle, open_index
    from mmedge.runtime.model import check_task

    queried, query = _query({"text": text, "image": image, "audio": audio})
    if top < 1:
        raise UsageError(f"--top is {top}, it must be at least 1")
    with open_index(index) as opened:
        known = open_bundle(_bundle(opened.about, bundle))
        check_task("embed", known.manifest.tasks)
        check_bundle(opened.about, known.digest, width_of(known.manifest.graphs), index)
        with open_encoder(known, backend=backend, threads=threads) as encoder:
            embedded = encoder.embed(queried, [query])[0]
        with opened.still():
            hits = _found(opened, embedded, top, modality, exact=exact)
    for hit in hits:
        _show(hit, json)
    return 0


def _query(named: dict[str, str | None]) -> tuple[str, str]:
    """The modality, and what is looked for."""
    given = [(modality, query) for modality, query in named.items() if query is not None]
    if len(given) != 1:
        several = " and ".join(NAMES[modality] for modality, _ in given)
        problem = f"{several} are named" if given else "nothing is named to look for"
        raise UsageError(
            problem, hint='mmedge search INDEX "a red bicycle", or --image query.jpg, or --audio query.wav'
        )
    return given[0]


def _bundle(about: About, named: Path | None) -> Path:
    path = named or Path(about.bundle)
    if not named and not path.is_dir():
        raise UsageError(
            f"the bundle `{for_terminal(str(path))}` of the index is not there any more", hint="name it with --bundle"
        )
    return path


def _found(opened: Index, query: np.ndarray, top: int, modality: str | None, *, exact: bool) -> list[Hit]:
    """The graph of neighbours knows no modalities, so one of them is searched by comparing all."""
    from mmedge.runtime.index import Hit
    from mmedge.runtime.vectors import nearest

    near = None if exact or modality else _near(opened)
    if near:
        found = near.find(query, top)
    else:
        ids, vectors = opened.rows(modality)
        found = [(int(ids[place]), cosine) for place, cosine in nearest(vectors, query, top)]
    if not found:
        what = f"nothing of the modality `{modality}`" if modality else "nothing"
        raise UsageError(f"`{opened.path}` has {what} in it")
    items = opened.items([number for number, _ in found])
    return [Hit(item.name, item.modality, cosine) for item, (_, cosine) in zip(items, found, strict=True)]


def _near(opened: Index) -> Near | None:
    """The graph of neighbours; what keeps one that is there from being used is told."""
    from mmedge.runtime.near import has_own, open_near

    if not has_own(opened):
        return None
    try:
        near, reason = open_near(opened), "of other items, or was not made here: `mmedge index` makes it again"
    except BackendError as error:
        near, reason = None, f"not used: {error.message} ({error.hint})"
    if near is None:
        print(f"note: all are compared, since the graph of neighbours is {reason}", file=sys.stderr)
    return near


def _show(hit: Hit, json: bool) -> None:
    if json:
        import msgspec

        print(json_line(msgspec.to_builtins(hit)), flush=True)
    else:
        print(f"{hit.cosine:7.4f}  {for_terminal(hit.name)}", flush=True)
