"""A conversation as one text, with the strings that a checkpoint's chat template puts around what people say.

Templates are programs (Jinja) from strangers. What they do to pictures, texts and answers in turn is a few fixed
strings, which are found while exporting (`mmedge.export.chat_template`); so a device runs no template.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from mmedge.core.family import Request, Turn
from mmedge.errors import InputError


class Piece(NamedTuple):
    """A part of a prompt: special tokens are recognised in the template's parts alone."""

    text: str
    of_template: bool


class Slots(Struct, frozen=True, forbid_unknown_fields=True):
    """What stands around the parts of a conversation."""

    begin: str
    user: str
    """Before a text without pictures."""
    user_pictures: str
    """Before the first picture of a turn."""
    picture: str
    """For each picture; it contains the image token."""
    after_pictures: str
    """Between the last picture and the text."""
    user_end: str
    answer: str
    """Before an answer that was given."""
    answer_end: str
    generation: str
    """Before the answer to be given."""
    trims: bool
    """Whether texts lose the spaces around them."""
    first: str = ""
    """The token that the tokenizer puts before a whole text; not part of the text, whose first word is still first."""
    video: str = ""
    """For a video, after the pictures of a turn; it contains the video token. Empty where there is no place for one."""
    user_video: str | None = None
    """Before a video without pictures, where that is not what stands before pictures."""


def pieces(slots: Slots, request: Request, pictures: Sequence[str], image_token: str, video: str = "") -> list[Piece]:
    """The whole conversation; in place of each image token stands what ``pictures`` has for it, in order, and after the
    last of them ``video``.

    Raises:
        InputError: the request asks nothing.
    """
    turns = request.turns
    if not (turns[-1].text or "").strip() and not turns[-1].images and not video:
        raise InputError("there is neither a picture nor a text", hint="ask something")
    tokens = iter(pictures)
    found = [Piece(slots.begin, True)]
    for turn in turns[:-1]:
        found += _asked(slots, turn, tokens, image_token)
        found += (Piece(slots.answer, True), _said(slots, turn.answer), Piece(slots.answer_end, True))
    found += _asked(slots, turns[-1], tokens, image_token, video)
    return [*found, Piece(slots.generation, True)]


def _asked(slots: Slots, turn: Turn, tokens: Iterator[str], image_token: str, video: str = "") -> Iterator[Piece]:
    shown = "".join(slots.picture.replace(image_token, next(tokens)) for _ in turn.images)
    if shown or video:
        before = slots.user_pictures if shown or slots.user_video is None else slots.user_video
        yield Piece(before + shown + video + slots.after_pictures, True)
    else:
        yield Piece(slots.user, True)
    yield _said(slots, turn.text or "")
    yield Piece(slots.user_end, True)


def _said(slots: Slots, text: str) -> Piece:
    return Piece(text.strip() if slots.trims else text, False)
