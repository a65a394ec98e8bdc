"""Zero-shot classification: which of some labels, told in words, an input is most like.

Texts made of a label by several templates are averaged, which is more accurate than any of them (Radford et al. 2021,
https://arxiv.org/abs/2103.00020, section 3.1.4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from mmedge.core.bundle import Bundle
from mmedge.core.family import Prompt
from mmedge.core.names import shown
from mmedge.core.similarity import Similarity
from mmedge.errors import BundleError, InputError
from mmedge.runtime.encoder import Encoder, width_of
from mmedge.runtime.golden import from_bytes, to_bytes

MARK = "{}"
"""Where a template has the label."""
TEMPLATES = ("a photo of {}",)
SOUND_TEMPLATES = ("the sound of {}",)
MOST_LABELS = 100_000
LONGEST_FILE = 64 << 20
BATCH = 256
"""Labels that are embedded before the next are read."""
NAMES, ROWS = "labels.json", "label_embeddings.npz"
"""Assets of a bundle that has its labels inside."""


class Labels(Struct, frozen=True):
    """Labels and what they mean: ``embeddings`` is float32 ``[labels, width]``, rows of length 1."""

    names: tuple[str, ...]
    embeddings: np.ndarray


class Guess(Struct, frozen=True):
    """A label and how well it fits; the ``probability`` is that among all labels."""

    label: str
    probability: float
    cosine: float


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line; empty lines do not count.

    Raises:
        InputError: the file cannot be used as a list of labels.
    """
    try:
        if path.stat().st_size > LONGEST_FILE:
            raise InputError(f"`{path}` is longer than {LONGEST_FILE >> 20} MiB", hint="one label a line")
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"cannot read the labels `{path}`: {reason}") from error
    return check_labels([line.strip() for line in lines if line.strip()], f"`{path}`")


def check_labels(labels: Sequence[str], where: str) -> tuple[str, ...]:
    """
    Raises:
        InputError: there are none, too many, or one twice.
    """
    if not labels:
        raise InputError(f"{where} has no labels", hint='such as "a cat,a dog", or a file with one a line')
    if len(labels) > MOST_LABELS:
        raise InputError(f"{where} has {len(labels)} labels, at most {MOST_LABELS} are allowed")
    label, count = Counter(labels).most_common(1)[0]
    if count > 1:
        raise InputError(f"{where} has the label `{label}` {count} times", hint="name each once")
    return tuple(labels)


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """
    Raises:
        InputError: one has no place for the label.
    """
    for template in templates:
        if MARK not in template:
            raise InputError(f"the template `{template}` has no {MARK}", hint='such as "a photo of {}"')
    return tuple(templates)


def embed_labels(
    encoder: Encoder, names: Sequence[str], templates: Sequence[str], done: Callable[[str], None] = lambda name: None
) -> Labels:
    """What each label means to the bundle's text tower, by the usual template where there are none; ``done`` hears each
    label."""
    templates = templates or (SOUND_TEMPLATES if encoder.subject == "audio" else TEMPLATES)
    rows: list[np.ndarray] = []
    for begin in range(0, len(names), BATCH):
        some = names[begin : begin + BATCH]
        prompts = [_prompt(encoder, name, template) for name in some for template in templates]
        means = encoder.run("text", prompts).reshape(len(some), len(templates), -1).mean(1)
        rows.append(means / np.linalg.norm(means, axis=-1, keepdims=True))
        for name in some:
            done(name)
    return Labels(tuple(names), np.concatenate(rows))


def _prompt(encoder: Encoder, name: str, template: str) -> Prompt:
    try:
        return encoder.prompt("text", template.replace(MARK, name))
    except InputError as error:
        raise InputError(f"the label `{shown(name, 60)}`: {error.message}", hint=error.hint) from error


def classify(embeddings: np.ndarray, labels: Labels, similarity: Similarity, top: int) -> list[list[Guess]]:
    """The ``top`` likeliest labels of each embedding ``[n, width]``, the likeliest first."""
    cosines = embeddings @ labels.embeddings.T
    logits = similarity.logits(embeddings, labels.embeddings)
    probabilities = similarity.probabilities(logits)
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :top]  # probabilities may all be 0
    return [
        [Guess(labels.names[place], float(probability[place]), float(cosine[place])) for place in best]
        for best, probability, cosine in zip(order, probabilities, cosines, strict=True)
    ]


def to_assets(labels: Labels) -> dict[str, bytes]:
    """Files of a bundle by asset name."""
    return {NAMES: msgspec.json.encode(labels.names), ROWS: to_bytes({"embeddings": labels.embeddings})}


def own_labels(bundle: Bundle) -> Labels | None:
    """Those that the bundle has inside; None if it has none.

    Raises:
        BundleError: they cannot be used.
    """
    assets = bundle.manifest.assets
    if NAMES not in assets and ROWS not in assets:
        return None
    try:
        names = msgspec.json.decode(bundle.read(assets[NAMES]), type=tuple[str, ...])
        rows = from_bytes(bundle.read(assets[ROWS]), assets[ROWS])["embeddings"]
        wanted = (len(names), width_of(bundle.manifest.graphs))
        if not names or rows.dtype != np.float32 or rows.shape != wanted or not np.isfinite(rows).all():
            raise ValueError(f"{rows.dtype} {rows.shape}, expected float32 {wanted}")
    except (KeyError, ValueError, msgspec.DecodeError) as error:
        raise BundleError(f"the labels of `{bundle.path}` cannot be used: {error}", hint="export it again") from error
    return Labels(names, rows)


def split_labels(text: str) -> Iterable[str]:
    """Labels as the command line has them, between commas."""
    return [label.strip() for label in text.split(",") if label.strip()]
