import numpy as np
import pytest
from PIL import Image

from mmedge.errors import InputError
from mmedge.media.video import Video
from mmedge.runtime.subjects import apart, look

PIXELS = np.zeros((2, 3, 3), np.uint8)
FILM = Video((PIXELS, PIXELS))


@pytest.mark.parametrize(
    "one", ["a.png", b"GIF89a", PIXELS, Image.new("RGB", (2, 2))], ids=lambda one: type(one).__name__
)
def test_a_single_picture_needs_no_list(one):
    pictures, video = apart(one)
    assert pictures[0] is one and len(pictures) == 1 and not video.frames


def test_a_video_is_told_from_pictures():
    assert apart(["a.png", FILM, "b.png"]) == (["a.png", "b.png"], FILM)


def test_two_videos_are_refused():
    with pytest.raises(InputError, match="at most one video, got 2"):
        apart((FILM, FILM))


@pytest.mark.parametrize("thing", [3, None, Image.new("RGB", (2, 2))], ids=lambda thing: type(thing).__name__)
def test_what_is_no_picture_is_named(thing):
    with pytest.raises(InputError, match=f"got {type(thing).__name__}$") as refused:
        look(thing)
    assert "asarray" in refused.value.hint
