"""Pictures and text come out as they do from `transformers`, where that is installed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from mmedge.media.image import decode_picture, preprocess
from mmedge.media.text import StreamingDetokenizer, Tokenizer

# The device side is also tested without it.
transformers = pytest.importorskip("transformers")

MODELS = {
    "blip": ("blip", "BlipImageProcessorPil", {"size": {"height": 48, "width": 40}}),
    "clip": (
        "clip",
        "CLIPImageProcessorPil",
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 36, "width": 36}},
    ),
    "wide": (
        "clip",
        "CLIPImageProcessorPil",
        {"size": {"shortest_edge": 20}, "crop_size": {"height": 37, "width": 50}},
    ),
    "raw": ("blip", "BlipImageProcessorPil", {"do_normalize": False, "size": {"height": 24, "width": 24}}),
    "bytes": ("blip", "BlipImageProcessorPil", {"do_rescale": False, "do_resize": False}),
    "half": ("blip", "BlipImageProcessorPil", {"rescale_factor": 1 / 127.5, "resample": 2, "image_mean": [1, 1, 1]}),
}
SIZES = [(1, 1), (1, 3), (3, 3), (4, 4), (1, 400), (30, 100), (100, 30), (40, 48), (48, 40), (61, 37), (333, 500)]


def processor_of(model: str) -> Any:
    from importlib import import_module

    folder, name, options = MODELS[model]
    module = import_module(f"transformers.models.{folder}.image_processing_pil_{folder}")
    return getattr(module, name)(**options)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model", MODELS)
def test_pictures_are_prepared_bit_for_bit_as_by_the_reference(model: str, size: tuple[int, int]):
    processor = processor_of(model)
    expected = processor(Image.fromarray(noise(*size)), return_tensors="np")["pixel_values"]
    planes = preprocess(noise(*size), processor.to_dict())
    assert planes.dtype == np.float32
    assert np.array_equal(planes, expected.astype(np.float32))


@hypothesis_settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), edge=st.integers(1, 90), resample=st.integers(0, 5))
def test_any_shape_and_filter_gives_what_the_reference_gives(height: int, width: int, edge: int, resample: int):
    processor = processor_of("clip")
    processor = type(processor)(size={"shortest_edge": edge}, crop_size={"height": 33, "width": 34}, resample=resample)
    if edge * max(height, width) // min(height, width) > 2_000:
        return
    expected = processor(Image.fromarray(noise(height, width)), return_tensors="np")["pixel_values"]
    assert np.array_equal(preprocess(noise(height, width), processor.to_dict()), expected)


def as_mode(mode: str) -> Image.Image:
    if mode == "transparent palette":
        image = Image.fromarray(noise(20, 30)).quantize(17)
        image.info["transparency"] = bytes(range(0, 255, 15))
        return image
    if mode == "LA":
        return Image.fromarray(noise(20, 30, 2), "LA")
    return Image.fromarray(noise(20, 30, 4)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "transparent palette", "1"])
def test_modes_become_rgb_as_in_the_reference(mode: str):
    file = io.BytesIO()
    as_mode(mode).save(file, "PNG")
    processor = processor_of("bytes")
    expected = processor(Image.open(file), return_tensors="np", do_normalize=False)["pixel_values"]
    assert np.array_equal(decode_picture(file.getvalue(), "a").pixels.transpose(2, 0, 1)[None], expected)


LINES = [
    "the quick brown fox isn't here , is it ?",
    "they 've said it 's fine . don ' t we 're",
    "a b c d e f g h n m s v r",
]


@pytest.fixture(scope="module")
def word_pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    library.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    folder = tmp_path_factory.mktemp("tokenizer")
    library.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("clean", [False, True])
def test_word_pieces_read_as_in_the_reference(word_pieces: Path, clean: bool):
    reference = transformers.BertTokenizer.from_pretrained(word_pieces, clean_up_tokenization_spaces=clean)
    ours = Tokenizer(reference.backend_tokenizer.to_str().encode(), clean_up_spaces=clean)
    numbers = list(range(len(reference)))
    random = np.random.default_rng(0)
    answers = [reference.encode(line) for line in LINES]
    answers += [random.choice(numbers, random.integers(0, 30)).tolist() for _ in range(200)]
    for tokens in answers:
        expected = reference.decode(tokens, skip_special_tokens=True)
        assert ours.decode(tokens) == expected
        stream = StreamingDetokenizer(ours)
        assert "".join([*map(stream.add, tokens), stream.finish()]) == expected


def test_encoding_plain_text_is_the_references(word_pieces: Path):
    reference = transformers.BertTokenizer.from_pretrained(word_pieces)
    ours = Tokenizer(reference.backend_tokenizer.to_str().encode())
    for text in [*LINES, "", "unknown Ünïcode 字 words", "  spaces \n and lines "]:
        assert ours.encode(text) == reference.encode(text)
        assert ours.encode(text, special=False) == reference.encode(text, add_special_tokens=False)


def test_cleaning_is_left_out_for_byte_pair_encoding_as_in_the_reference():
    library = Library(models.BPE())
    library.pre_tokenizer, library.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    library.train_from_iterator(LINES, trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    options = {"clean_up_tokenization_spaces": True}
    reference = transformers.PreTrainedTokenizerFast(tokenizer_object=library, **options)
    ours = Tokenizer(library.to_str().encode(), clean_up_spaces=True)
    tokens = ours.encode("is it ? they 've said .")
    assert ours.decode(tokens) == reference.decode(tokens, skip_special_tokens=True)
