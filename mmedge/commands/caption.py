"""``mmedge caption``"""

from __future__ import annotations

from pathlib import Path

from mmedge.commands._answer import Answering, Dashed, Job, Output, answer_all


def caption(
    bundle: Path,
    /,
    *pictures: Dashed,
    prompt: str | None = None,
    frames: int | None = None,
    output: Output = None,
    resume: bool = False,
    options: Answering = Answering(),
) -> int:
    """Describe pictures or videos.

    Args:
        bundle: A folder that `mmedge export` wrote.
        pictures: Picture files, folders of them, or - for a picture from standard input.
        prompt: Words that every caption goes on from; of models that can chat, what they are asked instead.
        frames: The pictures are videos, of which so many frames are looked at: animated pictures, folders of frames,
            or files that PyAV opens.
        output: A file that gets one JSON object per answer, as they come.
        resume: Go on with that file: pictures are skipped that it has answers for, of this bundle to this prompt.
    """
    from mmedge.errors import UsageError

    if not pictures:
        raise UsageError("no picture is given", hint="mmedge caption BUNDLE photo.jpg")
    return answer_all(bundle, pictures, Job("caption", prompt, options, output, resume, frames))
