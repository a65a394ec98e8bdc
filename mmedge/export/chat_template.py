"""A checkpoint's chat template as the few strings that it puts around what people say (`mmedge.media.chat.Slots`).

The template is rendered, in the sandbox of `transformers`, for conversations of made-up texts, and the strings are cut
out around these. Other conversations then show whether the strings say all that the template does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import replace

from mmedge.core.family import Request, Turn
from mmedge.errors import ModelError
from mmedge.export.weights import first_line
from mmedge.media.chat import Slots, pieces

FIRST, ANSWER, SECOND = "\ue000first", "\ue001answer", "\ue002second"
"""Texts that no template contains."""
PICTURE = np.zeros((1, 1, 3), np.uint8)


class Said(NamedTuple):
    """A user's turn, or with an ``answer`` also what came after."""

    pictures: int
    text: str
    answer: str | None = None
    video: bool = False


def slots_of(processor: Any, image_token: str) -> Slots | None:
    """None where the checkpoint has no chat template.

    Raises:
        ModelError: the template fails, or does something else than putting strings around texts and pictures.
    """
    if not getattr(processor, "chat_template", None):
        return None
    try:
        slots = _cut(processor, image_token)
        told = [conversation for conversation in PROBES if not _same(processor, slots, conversation, image_token)]
    except ModelError:
        raise
    except Exception as error:  # templates raise whatever their authors want
        raise ModelError(f"the chat template cannot be used: {first_line(error)}") from error
    if told:
        raise ModelError(
            f"the chat template does more than put strings around texts and pictures, as in {told[0]}",
            hint="give the checkpoint a simpler chat_template.jinja",
        )
    return _with_video(processor, slots, image_token)


def messages(turns: Sequence[Said]) -> list[dict[str, Any]]:
    """As chat templates take them."""
    found: list[dict[str, Any]] = []
    for turn in turns:
        content: list[dict[str, Any]] = [{"type": "image"} for _ in range(turn.pictures)]
        if turn.video:
            content.append({"type": "video"})
        if turn.text:
            content.append({"type": "text", "text": turn.text})
        found.append({"role": "user", "content": content})
        if turn.answer is not None:
            found.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return found


PROBES = (
    (Said(0, FIRST),),
    (Said(3, FIRST),),
    (Said(1, FIRST, ANSWER), Said(0, SECOND)),
    (Said(0, FIRST, ANSWER), Said(2, SECOND)),
    (Said(1, FIRST, ANSWER), Said(0, "third", "fourth"), Said(1, SECOND)),
    (Said(1, f"  {FIRST} \n", f" {ANSWER} "), Said(0, f" {SECOND}\n")),
)
"""Conversations that show whether all was found."""

VIDEOS = (
    (Said(0, FIRST, video=True),),
    (Said(2, FIRST, video=True),),
    (Said(1, FIRST, ANSWER), Said(0, SECOND, video=True)),
)
"""The same for videos."""


def _cut(processor: Any, image_token: str) -> Slots:
    def rendered(*turns: Said, asks: bool = True) -> str:
        return _rendered(processor, turns, asks)

    before, after = rendered(Said(0, FIRST)).split(FIRST)
    user_end = rendered(Said(0, FIRST), asks=False).split(FIRST)[1]
    opening, between, later, _ = _split(rendered(Said(0, FIRST, ANSWER), Said(0, SECOND)), (FIRST, ANSWER, SECOND))
    if opening != before or not after.startswith(user_end) or not between.startswith(user_end):
        raise ModelError("the chat template writes the first turn of a conversation otherwise when others follow")
    user = opening[len(opening) - _alike(opening[::-1], later[::-1]) :]
    begin, answer_end = opening[: len(opening) - len(user)], later[: len(later) - len(user)]
    one, two = (rendered(Said(count, FIRST)).split(FIRST)[0] for count in (1, 2))
    if not one.startswith(begin) or image_token not in one:
        raise ModelError(f"the chat template writes no `{image_token}` for a picture")
    user_pictures, picture, after_pictures = _around_pictures(one[len(begin) :], two[len(begin) :], image_token)
    spaces = rendered(Said(0, f" {FIRST} "))
    return Slots(
        begin=begin,
        user=user,
        user_pictures=user_pictures,
        picture=picture,
        after_pictures=after_pictures,
        user_end=user_end,
        answer=between[len(user_end) :],
        answer_end=answer_end,
        generation=after[len(user_end) :],
        trims=f" {FIRST} " not in spaces,
        first=_added(processor, rendered(Said(0, FIRST))),
    )


def _alike(one: str, other: str) -> int:
    """How many characters they begin with alike."""
    differing = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _split(text: str, marks: Sequence[str]) -> list[str]:
    parts = []
    for mark in marks:
        part, found, text = text.partition(mark)
        if not found:
            raise ModelError("the chat template leaves out what was said before")
        parts.append(part)
    return [*parts, text]


def _around_pictures(one: str, two: str, image_token: str) -> tuple[str, str, str]:
    """What stands before, for and after pictures, from turns of one and two of them."""
    size = len(two) - len(one)
    for begin in range(len(one) - size + 1):
        picture = one[begin : begin + size]
        if image_token in picture and one[:begin] + picture * 2 + one[begin + size :] == two:
            return one[:begin], picture, one[begin + size :]
    raise ModelError("the chat template does not write the same for every picture of a turn")


def _with_video(processor: Any, slots: Slots, image_token: str) -> Slots:
    """With what stands for a video, where the template writes one and the same string for each."""
    token = str(getattr(processor, "video_token", None) or "")
    if not token:
        return slots
    beside, alone = (_rendered(processor, (Said(count, FIRST, video=True),)).partition(FIRST)[0] for count in (1, 0))
    before = slots.begin + slots.user_pictures + slots.picture
    video = beside.removeprefix(before).removesuffix(slots.after_pictures)
    user = alone.removeprefix(slots.begin).removesuffix(video + slots.after_pictures)
    found = replace(slots, video=video, user_video=None if user == slots.user_pictures else user)
    fits = token in video and all(_same(processor, found, each, image_token) for each in VIDEOS)
    return found if fits else slots


def _added(processor: Any, rendered: str) -> str:
    """What the tokenizer adds before a rendered conversation."""
    tokenizer = processor.tokenizer
    ids = processor.apply_chat_template(messages([Said(0, FIRST)]), add_generation_prompt=True, tokenize=True)
    ids = ids["input_ids"] if hasattr(ids, "keys") else ids
    first = tokenizer.convert_ids_to_tokens(ids[0][0] if isinstance(ids[0], list) else ids[0])
    return str(first) if first == tokenizer.bos_token and not rendered.startswith(str(first)) else ""


def _rendered(processor: Any, turns: Sequence[Said], asks: bool = True) -> str:
    return str(processor.apply_chat_template(messages(turns), add_generation_prompt=asks, tokenize=False))


def _same(processor: Any, slots: Slots, turns: Sequence[Said], image_token: str) -> bool:
    earlier = tuple(Turn((PICTURE,) * turn.pictures, turn.text, turn.answer or "") for turn in turns[:-1])
    request = Request((PICTURE,) * turns[-1].pictures, turns[-1].text, earlier)
    pictures = [image_token] * sum(turn.pictures for turn in turns)
    video = slots.video if turns[-1].video else ""
    ours = "".join(piece.text for piece in pieces(slots, request, pictures, image_token, video))
    return ours == _rendered(processor, turns)
