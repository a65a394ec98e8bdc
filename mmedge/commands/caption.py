"""``mmedge caption``"""

from __future__ import annotations

from pathlib import Path

from mmedge.commands._answer import Answering, Dashed, answer_all


def caption(bundle: Path, /, *pictures: Dashed, prompt: str | None = None, options: Answering = Answering()) -> int:
    """Describe pictures.

    Args:
        bundle: A folder that `mmedge export` wrote.
        pictures: Picture files, folders of them, or - for a picture from standard input.
        prompt: Words that every caption goes on from.
    """
    from mmedge.errors import UsageError

    if not pictures:
        raise UsageError("no picture is given", hint="mmedge caption BUNDLE photo.jpg")
    return answer_all("caption", bundle, pictures, prompt, options)
