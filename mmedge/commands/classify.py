"""``mmedge classify``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from mmedge.commands._answer import STDIN, Dashed, expand, read_stdin
from mmedge.commands._shown_answers import Refusals, for_terminal, json_line
from mmedge.core.names import readable
from mmedge.errors import InputError, UsageError

if TYPE_CHECKING:
    from mmedge.core.bundle import Bundle
    from mmedge.runtime.classify import Guess, Labels
    from mmedge.runtime.encoder import Encoder

PERCENT = 100


def classify(
    bundle: Path,
    /,
    *files: Dashed,
    labels: str | None = None,
    labels_file: Path | None = None,
    template: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    top: int = 5,
    backend: str | None = None,
    threads: int = 0,
    json: bool = False,
) -> int:
    """Tell which of your labels pictures or sounds are most like.

    Args:
        bundle: A folder that `mmedge export` wrote, of a model that embeds texts, and pictures or sounds.
        files: Pictures or sounds, folders of them, or - for one from standard input.
        labels: The labels, with commas between them: "a cat,a dog".
        labels_file: A file with one label a line.
        template: The text made of a label, "a photo of {}" or "the sound of {}" unless given; of several the mean is
            taken.
        top: How many of the likeliest labels are told.
        backend: Run every graph on this engine instead of the target's choice.
        threads: CPU threads; 0 means all cores.
        json: One JSON object per file: its labels, each with probability and cosine.
    """
    from mmedge.core.bundle import open_bundle
    from mmedge.runtime.encoder import embedded_by, open_encoder, subject_of

    if not files:
        raise UsageError(
            "no picture and no sound is given", hint='mmedge classify BUNDLE photo.jpg --labels "a cat,a dog"'
        )
    if top < 1:
        raise UsageError(f"--top is {top}, it must be at least 1")
    opened = open_bundle(bundle)
    names = list(expand(files, subject_of(embedded_by(opened.manifest.graphs))))
    asked = _asked(opened, labels, labels_file, template)
    task = "embed" if isinstance(asked, tuple) else "classify"
    with open_encoder(opened, task, backend=backend, threads=threads) as encoder:
        known = asked if not isinstance(asked, tuple) else _embedded(encoder, *asked)
        return _classify_all(encoder, names, known, top, json)


def _asked(
    bundle: Bundle, labels: str | None, file: Path | None, templates: tuple[str, ...]
) -> Labels | tuple[tuple[str, ...], tuple[str, ...]]:
    """The bundle's own labels; or those that are given, and the templates.

    Raises:
        UsageError: there are none, or both.
        InputError: they cannot be used.
    """
    from mmedge.runtime.classify import check_labels, check_templates, own_labels, read_labels, split_labels

    if own := own_labels(bundle):
        if labels is not None or file or templates:
            hint = "leave out --labels and --template, or export the model without"
            raise UsageError(f"the bundle `{bundle.path}` has {len(own.names)} labels inside", hint=hint)
        return own
    if (labels is None) == (file is None):
        problem = "no labels are given" if labels is None else "labels are given twice"
        raise UsageError(problem, hint='--labels "a cat,a dog", or --labels-file labels.txt')
    names = read_labels(file) if file else check_labels(list(split_labels(labels or "")), "--labels")
    return names, check_templates(templates)


def _embedded(encoder: Encoder, names: tuple[str, ...], templates: tuple[str, ...]) -> Labels:
    from mmedge.commands._progress import Bar
    from mmedge.runtime.classify import embed_labels

    with Bar(len(names)) as bar:
        return embed_labels(encoder, names, templates, bar.step)


def _classify_all(encoder: Encoder, names: list[str], labels: Labels, top: int, json: bool) -> int:
    from mmedge.commands._progress import Bar
    from mmedge.core.family import MODALITIES
    from mmedge.runtime.classify import classify

    subject = encoder.subject
    out = Refusals(json, several=len(names) > 1, what=MODALITIES[subject].removesuffix("s"))
    with Bar(len(names)) as bar:
        for name in names:
            try:
                embedded = encoder.embed(subject, [read_stdin(subject) if name == STDIN else name])
            except InputError as error:
                bar.clear()
                out.refuse(name, error)
            else:
                bar.clear()
                guesses = classify(embedded, labels, encoder.similarity, top)[0]
                _show(name, out.what, guesses, json, several=out.several)
            bar.step(name)
    return out.end()


def _show(name: str, what: str, guesses: list[Guess], json: bool, *, several: bool) -> None:
    if json:
        import msgspec

        print(json_line({what: readable(name), "labels": [msgspec.to_builtins(each) for each in guesses]}), flush=True)
        return
    if several:
        print(f"{name}:")
    for guess in guesses:
        print(f"{PERCENT * guess.probability:6.2f} %  {for_terminal(guess.label)}", flush=True)
