from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Library

from mmedge.errors import BundleError, InputError
from mmedge.media.text import StreamingDetokenizer, Tokenizer

LINES = [
    "the quick brown fox jumps over the lazy dog , doesn ' t it ?",
    "they ' re here . we ' ve seen it ! a small red circle left of a big blue square",
    "naïve café über 東京 🙂 👩‍👩‍👧 é ß",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<image>"]


def trained(library: Library, trainer: trainers.Trainer) -> bytes:
    library.train_from_iterator(LINES, trainer)
    return library.to_str().encode()


def word_piece() -> bytes:
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    library.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", ends)
    return trained(library, trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL))


def byte_level() -> bytes:
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(library, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=SPECIAL))


def metaspace() -> bytes:
    library = Library(models.Unigram())
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    return trained(library, trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="[UNK]"))


def byte_fallback() -> bytes:
    """As SentencePiece models of the Llama kind: a character that the vocabulary lacks is spelled in bytes."""
    library = Library(models.BPE(byte_fallback=True, unk_token="[UNK]", fuse_unk=True))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    library.decoder = decoders.Sequence(steps)
    pieces = SPECIAL + [f"<0x{value:02X}>" for value in range(256)]
    plain = [AddedToken(piece, special=piece in SPECIAL) for piece in pieces]
    library.train_from_iterator(LINES[:2], trainers.BpeTrainer(vocab_size=330, special_tokens=plain))
    made = json.loads(library.to_str())
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] in SPECIAL]
    return json.dumps(made).encode()


FILES = {make.__name__: make() for make in (word_piece, byte_level, metaspace, byte_fallback)}
TOKENIZERS = {name: Tokenizer(data) for name, data in FILES.items()} | {
    "cleaned word_piece": Tokenizer(FILES["word_piece"], clean_up_spaces=True)
}
SIZES = {name: Library.from_buffer(data).get_vocab_size() for name, data in FILES.items()}


def pieces_of(tokenizer: Tokenizer, tokens: Iterable[int]) -> list[str]:
    stream = StreamingDetokenizer(tokenizer)
    return [*map(stream.add, tokens), stream.finish()]


class TestEncoding:
    def test_the_tokens_around_a_text_are_added_when_asked(self):
        tokenizer = TOKENIZERS["word_piece"]
        bare = tokenizer.encode("a small circle", special=False)
        assert tokenizer.encode("a small circle") == [2, *bare, 3]

    @pytest.mark.parametrize("typed", SPECIAL)
    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_special_tokens_that_a_user_types_stay_text(self, name: str, typed: str):
        tokenizer = TOKENIZERS[name]
        token = tokenizer.token_id(typed)
        tokens = tokenizer.encode(f"is {typed} red {typed}{typed}", special=False)
        assert token is not None and (typed == "[UNK]" or token not in tokens)
        text = tokenizer.decode(tokens)
        assert text.startswith("is") and "red" in text

    @settings(max_examples=300, deadline=None)
    @given(
        name=st.sampled_from(sorted(TOKENIZERS)),
        parts=st.lists(st.sampled_from([*SPECIAL, "[", "]", "<", ">", "[CLS", "image>", " ", "\u200b", "red", "東"])),
    )
    def test_no_text_at_all_gives_a_special_token(self, name: str, parts: list[str]):
        tokenizer = TOKENIZERS[name]
        found = tokenizer.special.intersection(tokenizer.encode("".join(parts), special=False))
        assert found <= {tokenizer.token_id("[UNK]")}

    @pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
    def test_what_looks_special_comes_back_as_it_was_typed(self, name: str):
        tokenizer = TOKENIZERS[name]
        text = "is <image> red [SEP] or <|im_start|> ?"
        assert tokenizer.decode(tokenizer.encode(text)) == text

    def test_truncation_and_padding_of_the_file_are_off(self):
        library = Library.from_buffer(FILES["word_piece"])
        library.enable_truncation(4)
        library.enable_padding(length=50)
        limited = Tokenizer(library.to_str().encode())
        for text in ("a", LINES[0]):
            assert limited.encode(text) == TOKENIZERS["word_piece"].encode(text)

    def test_text_that_is_not_unicode_is_refused(self):
        with pytest.raises(InputError, match="not valid Unicode at character 5"):
            TOKENIZERS["byte_level"].encode("what\udcff")

    def test_tokens_are_found_by_their_spelling(self):
        assert TOKENIZERS["word_piece"].token_id("[SEP]") == 3
        assert TOKENIZERS["word_piece"].token_id("[MASK]") is None


class TestDecoding:
    def test_special_tokens_are_left_out(self):
        tokenizer = TOKENIZERS["word_piece"]
        assert tokenizer.decode([0, *tokenizer.encode("a small red circle"), 3, 0]) == "a small red circle"

    def test_spaces_are_cleaned_up_when_asked(self):
        text = "they ' re here . isn ' t it ?"
        tokens = TOKENIZERS["word_piece"].encode(text)
        assert TOKENIZERS["word_piece"].decode(tokens) == "they ' re here. isn ' t it?"
        assert TOKENIZERS["cleaned word_piece"].decode(tokens) == "they're here. isn't it?"

    def test_spaces_that_byte_pair_encoding_kept_are_never_cleaned_up(self):
        tokenizer = Tokenizer(FILES["byte_level"], clean_up_spaces=True)
        assert tokenizer.decode(tokenizer.encode("is it ? no .")) == "is it ? no ."

    def test_a_token_beyond_the_vocabulary_is_no_text(self):
        assert TOKENIZERS["metaspace"].decode([10**6]) == ""


class TestStreaming:
    @settings(max_examples=300, deadline=None)
    @given(name=st.sampled_from(sorted(TOKENIZERS)), data=st.data())
    def test_pieces_of_any_tokens_join_to_the_whole(self, name: str, data: st.DataObject):
        size = SIZES[name.removeprefix("cleaned ")]
        tokens = data.draw(st.lists(st.integers(0, size), max_size=90))
        assert "".join(pieces_of(TOKENIZERS[name], tokens)) == TOKENIZERS[name].decode(tokens)

    def test_a_token_beyond_the_vocabulary_does_not_end_a_run_of_bytes(self):
        tokenizer = TOKENIZERS["byte_fallback"]
        first, beyond, last = tokenizer.token_id("<0x00>"), 10**6, tokenizer.token_id("<0x80>")
        assert "".join(pieces_of(tokenizer, [first, beyond, last])) == tokenizer.decode([first, last]) == "\ufffd" * 2

    @settings(max_examples=200, deadline=None)
    @given(name=st.sampled_from(sorted(TOKENIZERS)), text=st.text(max_size=60))
    def test_pieces_of_any_text_join_to_the_whole(self, name: str, text: str):
        tokens = TOKENIZERS[name].encode(text)
        assert "".join(pieces_of(TOKENIZERS[name], tokens)) == TOKENIZERS[name].decode(tokens)

    @settings(max_examples=200, deadline=None)
    @given(tokens=st.lists(st.sampled_from(["<0xF0>", "<0x9F>", "<0xC3>", "<0xA9>", "a", "▁", "[SEP]"]), max_size=60))
    def test_bytes_in_any_order_join_to_the_whole(self, tokens: list[str]):
        tokenizer = TOKENIZERS["byte_fallback"]
        numbers = [number for number in map(tokenizer.token_id, tokens) if number is not None]
        assert len(numbers) == len(tokens)
        assert "".join(pieces_of(tokenizer, numbers)) == tokenizer.decode(numbers)

    @settings(max_examples=300, deadline=None)
    @given(words=st.lists(st.sampled_from([*"'.?!,nmsvart", "##t", "ve", "re", "##e", "##s"]), max_size=40))
    def test_cleaned_pieces_join_to_the_whole(self, words: list[str]):
        tokenizer = TOKENIZERS["cleaned word_piece"]
        tokens = [number for number in map(tokenizer.token_id, words) if number is not None]
        assert "".join(pieces_of(tokenizer, tokens)) == tokenizer.decode(tokens)

    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_a_long_answer_joins_to_the_whole(self, name: str):
        tokenizer = TOKENIZERS[name]
        tokens = tokenizer.encode(" ".join(LINES * 12))
        pieces = pieces_of(tokenizer, tokens)
        assert len(tokens) > 400 and "".join(pieces) == tokenizer.decode(tokens)

    @pytest.mark.parametrize("name", ["word_piece", "byte_level", "metaspace"])
    def test_ordinary_words_are_given_as_they_come(self, name: str):
        tokenizer = TOKENIZERS[name]
        tokens = tokenizer.encode("the quick brown fox", special=False)
        pieces = pieces_of(tokenizer, tokens)
        assert all(pieces[:-1]) and pieces[-1] == ""

    def test_a_character_spread_over_tokens_is_given_once_it_is_complete(self):
        tokenizer = TOKENIZERS["byte_level"]
        tokens = [number for byte in "ðŁĻĤ" if (number := tokenizer.token_id(byte)) is not None]
        assert len(tokens) == 4
        assert pieces_of(tokenizer, tokens) == ["", "", "", "🙂", ""]

    def test_bytes_wait_for_the_token_after_them(self):
        tokenizer = TOKENIZERS["byte_fallback"]
        tokens = tokenizer.encode("a東b", special=False)
        assert pieces_of(tokenizer, tokens)[-6:] == ["a", "", "", "", "東b", ""]

    @pytest.mark.parametrize("name", ["byte_level", "byte_fallback"])
    def test_an_answer_that_ends_within_a_character_says_so(self, name: str):
        tokenizer = TOKENIZERS[name]
        tokens = tokenizer.encode("a 🙃", special=False)[:-1]
        pieces = pieces_of(tokenizer, tokens)
        assert "�" not in "".join(pieces[:-1]) and set(pieces[-1].strip()) == {"�"}

    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_what_was_given_is_never_taken_back(self, name: str):
        tokenizer = TOKENIZERS[name]
        tokens = tokenizer.encode(LINES[1] + LINES[2])
        stream, given = StreamingDetokenizer(tokenizer), ""
        for end, token in enumerate(tokens, 1):
            given += stream.add(token)
            assert tokenizer.decode(tokens).startswith(given)
            assert given == tokenizer.decode(tokens[:end])[: len(given)]

    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_special_tokens_say_nothing(self, name: str):
        stream = StreamingDetokenizer(TOKENIZERS[name])
        assert [stream.add(token) for token in range(len(SPECIAL))] == [""] * len(SPECIAL)
        assert stream.finish() == ""

    @pytest.mark.parametrize("name", TOKENIZERS)
    def test_a_token_costs_the_same_late_in_an_answer(self, name: str, monkeypatch: pytest.MonkeyPatch):
        tokenizer, longest = Tokenizer(FILES[name.removeprefix("cleaned ")]), 0
        decode_raw = tokenizer.decode_raw

        def counted(tokens: list[int]) -> str:
            nonlocal longest
            longest = max(longest, len(tokens))
            return decode_raw(tokens)

        monkeypatch.setattr(tokenizer, "decode_raw", counted)
        pieces_of(tokenizer, tokenizer.encode("the quick brown fox " * 100))
        assert longest < 40


def changed(**parts: object) -> bytes:
    return json.dumps(json.loads(FILES["word_piece"]) | parts).encode()


DAMAGED = {
    "empty": b"",
    "not json": b"\x80\x04pickle",
    "null": b"null",
    "no model": b'{"version": "1.0"}',
    "cut": FILES["word_piece"][: len(FILES["word_piece"]) // 2],
    "deep": b'{"model":' * 50_000,
    "unknown model": changed(model={"type": "Oracle"}),
    "bad merges": changed(model={"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}),
    "bad pattern": changed(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}
    ),
    "panic": changed(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
}


class TestDamage:
    @pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
    def test_a_damaged_file_is_a_damaged_bundle(self, data: bytes):
        with pytest.raises(BundleError) as caught:
            Tokenizer(data)
        assert caught.value.message == "the tokenizer file is damaged" and caught.value.exit_code == 4

    @pytest.mark.parametrize(
        "parts",
        [
            {"model": {"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}, "added_tokens": []},
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "X", "type_id": 0}}],
                    "pair": [],
                    "special_tokens": {},
                }
            },
        ],
        ids=["unknown token missing", "template token missing"],
    )
    def test_damage_that_shows_only_in_use_is_named_too(self, parts: dict[str, object]):
        with pytest.raises(BundleError, match="the tokenizer file is damaged"):
            Tokenizer(changed(**parts)).encode("word")
