from __future__ import annotations

import importlib.util
import random
import unicodedata
from pathlib import Path
from types import ModuleType

import pytest
import transformers

from mmedge.core import find
from mmedge.errors import ModelError
from mmedge.export.vocabulary import plain_sentence_piece, vocabulary
from mmedge.media.text import Tokenizer

MAKER = Path(__file__).parents[1] / "families" / "checkpoints" / "siglip.py"
LETTERS = "aAbBcC   .,!?<>/'éÉÀΣσςßﬁ①½▁\t\n\x1c\x85\u00a0\u2028\u200b夜街🙂İı\u2019-_s™ª"
TEXTS = (
    "",
    "  two   cats ",
    "Hello, WORLD!",
    "</s>",
    "<unk> x <pad>",
    "▁a▁b",
    "ΟΔΟΣ ΟΔΟΣ. ΣΑΣ'Σ Σ",
    "İstanbul",
    "夜の街に雨",
    "".join(chr(ord(letter) + 0xFEE0) for letter in "wide</s>ok<unk>"),
    "e\u0301 e\u0308\u0301 \u0301 x\u0301",
    "🙂 👨\u200d👩\u200d👧 ok",
    "...",
    "¨ x ¨",
)


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("checkpoint_of_siglip", MAKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def slow(maker, tmp_path_factory) -> transformers.SiglipTokenizer:
    folder = maker.make(find.family("siglip").tiny[0], tmp_path_factory.mktemp("siglip"))
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def ours(slow) -> Tokenizer:
    return Tokenizer(vocabulary(slow))


def wanted(slow, text: str) -> list[int]:
    """Text of special tokens is text."""
    return slow(text, split_special_tokens=True)["input_ids"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_becomes_the_tokens_that_sentence_piece_makes_of_it(slow, ours, text):
    assert ours.encode(text) == wanted(slow, text)


def test_so_do_texts_of_random_characters(slow, ours):
    generator = random.Random(0)
    texts = ["".join(generator.choices(LETTERS, k=generator.randint(0, 20))) for _ in range(3000)]
    assert [text for text in texts if ours.encode(text) != wanted(slow, text)] == []


def test_every_character_is_made_plain_as_python_and_sentence_piece_do(slow):
    """But for two old accents in one character, and for letters that are younger than this Python."""
    normalizer = plain_sentence_piece(slow).normalizer

    def plain(text: str) -> str:
        return slow.sp_model.normalize("<unk>" + slow.canonicalize_text("▁" + text))[len("▁<unk>") :]

    letters = [chr(number) for number in range(1, 0x20000) if not 0xD800 <= number < 0xE000 and number != 0x2581]
    other = {each for each in letters if normalizer.normalize_str(f"a{each}b") != plain(f"a{each}b")}
    assert {each for each in other if unicodedata.category(each) != "Cn"} == {"\u0344"}


def test_lower_case_is_left_alone_where_the_tokenizer_leaves_it(slow, monkeypatch):
    monkeypatch.setattr(slow, "do_lower_case", False)
    for text in ("A Cat.", "ΟΔΟΣ"):
        assert Tokenizer(vocabulary(slow)).encode(text) == wanted(slow, text)


KINDS = {
    "bytes for unknown characters": {"byte_fallback": True},
    "characters as they are": {"normalization_rule_name": "identity"},
    "another map of characters": {"normalization_rule_name": "nfkc"},
    "symbols that texts lose their punctuation of": {"user_defined_symbols": ["<extra_id_0>", "a.b"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_other_kinds_cut_alike(maker, kind, tmp_path):
    (tmp_path / "spiece.model").write_bytes(maker.sentence_piece(400, **KINDS[kind]))
    other = transformers.SiglipTokenizer(str(tmp_path / "spiece.model"))
    generator = random.Random(1)
    texts = ["".join(generator.choices(LETTERS + "<extra_id_0>", k=generator.randint(0, 20))) for _ in range(500)]
    made = Tokenizer(vocabulary(other))
    texts += [*TEXTS, "a <extra_id_0> b", "a.b"]
    assert [text for text in texts if made.encode(text) != wanted(other, text)] == []


REFUSED = {
    "it is no unigram model": {"model_type": "bpe", "vocab_size": 120},
    "a plain text may have symbols of its own": {"user_defined_symbols": ["cat"]},
    "it keeps spaces as they are": {"remove_extra_whitespaces": False},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_model_that_tokenizers_cannot_run_alike_is_refused(maker, reason, tmp_path):
    settings = {"size": 400, **REFUSED[reason]}
    size = settings.pop("vocab_size", settings.pop("size"))
    (tmp_path / "spiece.model").write_bytes(maker.sentence_piece(size, **settings))
    with pytest.raises(ModelError, match=reason):
        vocabulary(transformers.SiglipTokenizer(str(tmp_path / "spiece.model")))


def test_a_tokenizer_of_another_kind_is_refused():
    with pytest.raises(ModelError, match="`object` is a tokenizer that cannot be written"):
        vocabulary(object())
