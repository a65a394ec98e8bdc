from pathlib import Path

import pytest

from mmedge.core import find
from mmedge.errors import ModelError
from mmedge.export.known import family_of, nearest


def test_families_are_found_by_their_type():
    assert family_of({"model_type": "blip", "architectures": ["BlipForQuestionAnswering"]}, Path()).name == "blip"


def test_the_nearest_are_those_of_a_similar_type():
    assert nearest("qwen2_vl_moe", "None")[0] == "qwen2_vl" and "qwen2_5_vl" in nearest("qwen2_vl_moe", "None")
    assert nearest("llava_next", "LlavaNextForConditionalGeneration")[:2] == ["llava", "llava_onevision"]


def test_the_nearest_are_also_those_of_a_similar_architecture():
    assert nearest("zzz", "SmolVLM2ForConditionalGeneration") == ["smolvlm"]


def test_what_all_architectures_have_in_common_makes_none_near():
    assert nearest("whisper", "WhisperForConditionalGeneration") == []


KNOWN = f"known: {', '.join(find.names('families'))}"


@pytest.mark.parametrize(("kind", "hint"), [("blipp", "nearest: blip"), ("unheard", KNOWN)])
def test_an_unknown_type_is_refused_with_what_is_known(kind, hint):
    with pytest.raises(ModelError, match=f"`folder` is a model of type `{kind}`") as caught:
        family_of({"model_type": kind, "architectures": ["XModel"]}, Path("folder"))
    assert caught.value.hint.startswith(hint)
