"""``mmedge ask``"""

from __future__ import annotations

from pathlib import Path

from mmedge.commands._answer import Answering, Dashed, Job, Output, answer_all


def ask(
    bundle: Path,
    picture: Dashed,
    question: Dashed,
    /,
    *,
    frames: int | None = None,
    output: Output = None,
    resume: bool = False,
    options: Answering = Answering(),
) -> int:
    """Answer a question about a picture or a video.

    Args:
        bundle: A folder that `mmedge export` wrote.
        picture: A picture file, a folder of them (the question is asked of each), or - for standard input.
        question: In quotes, such as "what colour is the car?".
        frames: The picture is a video, of which so many frames are looked at: an animated picture, a folder of
            frames, or a file that PyAV opens.
        output: A file that gets one JSON object per answer, as they come.
        resume: Go on with that file: pictures are skipped that it has answers for, of this bundle to this question.
    """
    from mmedge.errors import UsageError

    if not question.strip():
        raise UsageError("the question is empty")
    return answer_all(bundle, (picture,), Job("ask", question, options, output, resume, frames))
