"""tokenizer.json of a checkpoint's tokenizer, also of one that `transformers` runs by SentencePiece and Python.

Such a tokenizer makes a text plain (lower case, no punctuation, single spaces), and SentencePiece cuts it. Here both
are spelled for `tokenizers`, which is all that a device has: its precompiled map of characters is the one of the model.
"""

from __future__ import annotations

import re
import string
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, processors
from transformers.convert_slow_tokenizer import import_protobuf

from mmedge.errors import ModelError

SPACE = "▁"
"""How SentencePiece spells one."""
SPACES = r"[\x{9}-\x{d}\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
LAST_SIGMA = r"(?<=\p{Cased}\p{Case_Ignorable}{0,16})Σ(?!\p{Case_Ignorable}*\p{Cased})"
"""A capital that Python writes in another way at the end of a word."""
UNIGRAM, NORMAL, OWN, BYTE = 1, 1, 4, 6
"""Numbers of a kind of model, and of kinds of pieces: ordinary ones, those that are cut out before all others, and
bytes of unknown characters."""


def vocabulary(tokenizer: Any) -> bytes:
    """tokenizer.json: not the file, which `transformers` mends while reading it and older checkpoints lack.

    Raises:
        ModelError: there is no way to say what the tokenizer does.
    """
    if hasattr(tokenizer, "backend_tokenizer"):
        return tokenizer.backend_tokenizer.to_str().encode()
    if hasattr(tokenizer, "sp_model") and hasattr(tokenizer, "canonicalize_text"):
        return plain_sentence_piece(tokenizer).to_str().encode()
    raise ModelError(f"`{type(tokenizer).__name__}` is a tokenizer that cannot be written as a tokenizer.json")


def plain_sentence_piece(tokenizer: Any) -> Tokenizer:
    """Of one that makes texts plain before SentencePiece cuts them. Of two ways to cut that are equally likely, such as
    those of "eeeee" to pairs and a single letter, rounding may choose the other one.

    Raises:
        ModelError: the SentencePiece model is of a kind that `tokenizers` has no equal of.
    """
    proto = import_protobuf().ModelProto.FromString(tokenizer.sp_model.serialized_model_proto())
    _refuse_others(proto)
    made = Tokenizer(models.Unigram(_pieces(proto), proto.trainer_spec.unk_id, proto.trainer_spec.byte_fallback))
    made.normalizer = _normalizer(tokenizer, proto.normalizer_spec.precompiled_charsmap)
    made.decoder = decoders.Metaspace()
    end = tokenizer.eos_token
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    return made


def _pieces(proto: Any) -> list[tuple[str, float]]:
    """With their scores; those that SentencePiece finds in no text are spelled with a space, which no text has when it
    is cut: `tokenizers` would find them."""
    return [(piece.piece if piece.type in (NORMAL, BYTE) else f" {piece.piece}", piece.score) for piece in proto.pieces]


def _refuse_others(proto: Any) -> None:
    normal = proto.normalizer_spec
    kinds = {
        "it is no unigram model": proto.trainer_spec.model_type != UNIGRAM,
        "a plain text may have symbols of its own": any(_stays(piece) for piece in proto.pieces),
        "it keeps spaces as they are": not (normal.remove_extra_whitespaces and normal.escape_whitespaces),
    }
    for reason, found in kinds.items():
        if found:
            raise ModelError(f"the SentencePiece model cannot be written as a tokenizer.json: {reason}")


def _stays(piece: Any) -> bool:
    """Whether it is cut out before all others, and nothing of it is taken away before that."""
    return piece.type == OWN and not set(piece.piece) & set(string.punctuation)


def _normalizer(tokenizer: Any, mapped: bytes) -> normalizers.Normalizer:
    """What Python makes of a text, and then SentencePiece, for which there is a space before it."""
    steps: list[normalizers.Normalizer] = [normalizers.Replace(SPACE, " ")]
    if tokenizer.do_lower_case:
        steps += [normalizers.Replace(Regex(LAST_SIGMA), "ς"), normalizers.Lowercase()]
    steps += [
        normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), ""),
        normalizers.Replace(Regex(SPACES), " "),
        normalizers.Strip(left=False, right=True),
    ]
    if mapped:
        # `tokenizers` maps a letter and its accents as one only where that is one character.
        steps += [normalizers.NFC(), normalizers.Precompiled(mapped)]
    steps += [
        normalizers.Prepend(" " if _is_space(tokenizer.sp_model) else SPACE),
        normalizers.Replace(Regex(" {2,}"), " "),
        normalizers.Replace(" ", SPACE),
        normalizers.Replace(Regex(f"{SPACE}+$"), ""),
    ]
    return normalizers.Sequence(steps)


def _is_space(model: Any) -> bool:
    """Whether `SPACE` in a text becomes one with the spaces around it, as most models have it."""
    return bool(model.normalize(f"a{SPACE} b") == f"{SPACE}a{SPACE}b")
