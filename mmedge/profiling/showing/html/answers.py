"""The answers that are not the reference's, side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

from mmedge.errors import MmedgeError
from mmedge.profiling.run import Input, Run
from mmedge.profiling.showing.html.candidates import label_of, own
from mmedge.profiling.showing.html.figures import Absent, Gallery
from mmedge.profiling.showing.html.tasks import reference_of
from mmedge.profiling.showing.html.text import escape, percent

NAME, TITLE = "answers", "Answers that changed"
MOST = 40
SIDE = 112
"""Pixels of a small picture."""
PICTURES = 300_000
"""Bytes of all small pictures."""
LONGEST = 600
"""Characters of an answer."""


def figure(run: Run) -> Gallery | Absent:
    """Inputs that some candidate answers otherwise than the reference."""
    answers, first = _answers(run), label_of(run, reference_of(run))
    changed = [number for number in range(len(run.inputs.items)) if _differ(run, answers, number)]
    if len(own(run)) < 2 or not answers:
        return Absent(NAME, TITLE, "Nothing to compare: it takes answers of two candidates.")
    if not changed:
        return Absent(NAME, TITLE, f"None: every candidate gave the answer of {first} to every input.")
    pictures = _pictures([run.inputs.items[number] for number in changed[:MOST]])
    shown = "".join(_card(run, answers, number, pictures) for number in changed[:MOST])
    said = f"{len(changed)} of {len(run.inputs.items)} inputs ({percent(len(changed) / len(run.inputs.items))})."
    return Gallery(
        NAME,
        TITLE,
        f"What each candidate said where it was not what {first} said; ≠ marks the difference.",
        f'<div class="gallery">{shown}</div>',
        note=said + (f" The first {MOST} are shown." if len(changed) > MOST else ""),
    )


def _answers(run: Run) -> dict[tuple[int, int], tuple[str, ...]]:
    """Texts by candidate and input."""
    found: dict[tuple[int, int], tuple[str, ...]] = {}
    for answer in run.answers:
        key = answer.c, answer.input
        found[key] = tuple(dict.fromkeys((*found.get(key, ()), answer.text)))
    return found


def _differ(run: Run, answers: dict[tuple[int, int], tuple[str, ...]], number: int) -> bool:
    given = {answers[c, number] for c in own(run) if (c, number) in answers}
    return (reference_of(run), number) in answers and len(given) > 1


def _card(run: Run, answers: dict[tuple[int, int], tuple[str, ...]], number: int, pictures: dict[str, str]) -> str:
    item = run.inputs.items[number]
    picture = f'<img src="{pictures[item.file]}" alt="">' if item.file in pictures else ""
    question = f"<p>{escape(item.text)}</p>" if item.text else ""
    expected = f'<p class="note">right: {escape(" | ".join(item.expected)[:LONGEST])}</p>' if item.expected else ""
    by_text: dict[tuple[str, ...], list[str]] = {}
    for c in own(run):
        by_text.setdefault(answers.get((c, number), ()), []).append(label_of(run, c))
    said = "".join(_said(names, texts, answers[reference_of(run), number]) for texts, names in by_text.items())
    return f"<article>{picture}<div><h3>{escape(item.id)}</h3>{question}{expected}<dl>{said}</dl></div></article>"


def _said(names: list[str], texts: tuple[str, ...], first: tuple[str, ...]) -> str:
    """Candidates that said the same stand together."""
    said = " / ".join(text if len(text) <= LONGEST else f"{text[:LONGEST]}…" for text in texts) or "(no answer)"
    changed = texts and texts != first
    told = f'<dd class="changed">≠ {escape(said)}</dd>' if changed else f"<dd>{escape(said)}</dd>"
    return f"<dt>{escape(', '.join(names))}</dt>{told}"


def _pictures(items: list[Input]) -> dict[str, str]:
    """Small ones by file, as many as fit; a picture that is not there, or is none, is left out."""
    found: dict[str, str] = {}
    for file in dict.fromkeys(item.file for item in items if item.file):
        for address in _small(Path(file)):
            if sum(map(len, found.values())) + len(address) <= PICTURES:
                found[file] = address
    return found


def _small(path: Path) -> Iterator[str]:
    from PIL import Image

    from mmedge.media.image import decode_picture, read_picture

    try:
        pixels = decode_picture(read_picture(path), path.name).pixels
    except MmedgeError:  # the run may have been measured on another machine
        return
    small = Image.fromarray(pixels)
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=70)
    yield f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
