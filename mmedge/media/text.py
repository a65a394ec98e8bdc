"""Text to tokens and back, with nothing but the checkpoint's ``tokenizer.json``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from mmedge.errors import BundleError, InputError

if TYPE_CHECKING:
    import tokenizers

    from mmedge.media.chat import Piece

# In this order, as `transformers` does where a checkpoint sets `clean_up_tokenization_spaces`.
_CLEAN_UP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip

_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
_CONTEXT = 8
"""Earlier tokens that are decoded again with new ones: a decoder treats the first token apart, and a character may have
been spread over four."""


class Tokenizer:
    """The tokenizer of a checkpoint.

    Text of a user is only ever text: `[SEP]` or `<image>` in it becomes ordinary tokens, never the special token.
    Truncation and padding that the file may ask for are off.
    """

    def __init__(self, data: bytes, *, clean_up_spaces: bool = False) -> None:
        """Read a ``tokenizer.json``; ``clean_up_spaces`` is the checkpoint's ``clean_up_tokenization_spaces``.

        Raises:
            BundleError: the file is damaged.
        """
        import tokenizers

        with _damage_named():
            self._tokenizer = tokenizers.Tokenizer.from_buffer(data)
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = self._tokenizer.get_added_tokens_decoder().items()
        self.special = frozenset(number for number, token in added if token.special)
        self._spellings = {token.content: number for number, token in added if token.special}
        # Cleaning was made for WordPiece; it takes legitimate spaces out of what byte-pair encoding kept.
        self.clean_up = _CLEAN_UP if clean_up_spaces and type(self._tokenizer.model).__name__ != "BPE" else ()
        decoder = self._tokenizer.decoder
        self._has_bytes = decoder is not None and b"ByteFallback" in decoder.__getstate__()

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Tokens of ``text``, with those that the tokenizer adds around every text unless ``special`` is False.

        Raises:
            InputError: the text is not valid Unicode.
            BundleError: the file names tokens that it does not have.
        """
        _check_unicode(text)
        with _damage_named():
            return self._tokenizer.post_process(self._plain(text), add_special_tokens=special).ids

    def encode_pieces(self, pieces: Sequence[Piece]) -> list[int]:
        """Tokens of one text whose parts partly come from a template: special tokens are recognised in those alone, and
        nothing is added around the text.

        Raises:
            InputError: a part is not valid Unicode.
        """
        for piece in pieces:
            _check_unicode(piece.text)
        with _damage_named():
            if any(special in piece.text for piece in pieces if not piece.of_template for special in self._spellings):
                return self._encode_apart(pieces)
            self._tokenizer.encode_special_tokens = False
            try:
                return self._tokenizer.encode("".join(piece.text for piece in pieces), add_special_tokens=False).ids
            finally:
                self._tokenizer.encode_special_tokens = True

    def _encode_apart(self, pieces: Sequence[Piece]) -> list[int]:
        """Somebody typed a special token: what is between those of the template is encoded without any."""
        parts = "|".join(map(re.escape, sorted(self._spellings, key=len, reverse=True)))
        runs: list[int | str] = [""]
        for piece in pieces:
            for part in re.split(f"({parts})", piece.text) if piece.of_template else (piece.text,):
                if piece.of_template and part in self._spellings:
                    runs += (self._spellings[part], "")
                else:
                    runs[-1] = f"{runs[-1]}{part}"
        return [token for run in runs for token in ([run] if isinstance(run, int) else self._plain(run).ids)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ``tokens`` without special ones."""
        text = self.decode_raw(tokens)
        for old, new in self.clean_up:
            text = text.replace(old, new)
        return text

    def decode_raw(self, tokens: Sequence[int]) -> str:
        """`decode` before spaces are cleaned up."""
        return self._tokenizer.decode([int(token) for token in tokens], skip_special_tokens=True)

    def token_id(self, text: str) -> int | None:
        """The token that is spelled exactly ``text``, such as `[SEP]`; None if there is none."""
        return self._tokenizer.token_to_id(text)

    def has(self, token: int) -> bool:
        """Whether the vocabulary has the token: models may know more of them, to make their sizes round."""
        return self._tokenizer.id_to_token(token) is not None

    def is_byte(self, token: int) -> bool:
        """Whether the token is one byte of a character that the vocabulary lacks (byte fallback)."""
        return self._has_bytes and _BYTE.fullmatch(self._tokenizer.id_to_token(token) or "") is not None

    def _plain(self, text: str) -> tokenizers.Encoding:
        """Some vocabularies hold their special tokens as ordinary pieces too (Unigram models do): what was typed as one
        is cut in two."""
        from tokenizers import Encoding

        whole = self._tokenizer.encode(text, add_special_tokens=False)
        tokens = zip(whole.ids, whole.offsets, strict=True)
        cuts = [(start + end) // 2 for token, (start, end) in tokens if self._typed(token, text[start:end])]
        if not cuts:
            return whole
        parts = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
        return Encoding.merge([self._tokenizer.encode(part, add_special_tokens=False) for part in parts])

    def _typed(self, token: int, text: str) -> bool:
        """Whether ``text``, which became ``token``, is the spelling of a special token; the token for unknown text is
        special as well."""
        if token not in self.special:
            return False
        normalizer = self._tokenizer.normalizer
        return self._tokenizer.id_to_token(token) in (normalizer.normalize_str(text) if normalizer else text)


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the text is not valid Unicode at character {error.start + 1}") from error


@contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic of the library's Rust side is not an `Exception`
        raise BundleError("the tokenizer file is damaged", hint="make the bundle again") from error


class StreamingDetokenizer:
    """Text of one answer while its tokens arrive; all pieces together are `Tokenizer.decode` of all tokens.

    Not `tokenizers.decoders.DecodeStream`: it keeps back what an answer ends with if that is no whole character, and
    hands out a byte-fallback character that the next byte takes back.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._given = 0
        self._stages = [_Replacement(old, new) for old, new in tokenizer.clean_up]

    def add(self, token: int) -> str:
        """The text that no later token can change any more; empty while a character or a space is undecided."""
        if token in self._tokenizer.special or not self._tokenizer.has(token):
            return ""  # neither ends a run of byte tokens
        self._tokens.append(token)
        certain = self._certain()
        text = self._tokenizer.decode_raw(certain)
        whole = len(text) - text.endswith("\ufffd")  # the bytes so far are the start of a character, or none at all
        piece, self._given = text[self._given : whole], whole
        if whole == len(text) and len(certain) == len(self._tokens) > 4 * _CONTEXT:
            self._forget()
        return self._clean(piece)

    def finish(self) -> str:
        """What was kept back; the answer ends here."""
        return self._clean(self._tokenizer.decode_raw(self._tokens)[self._given :], last=True)

    def _certain(self) -> list[int]:
        """Byte tokens at the end become characters, or replacement characters, only together with those that follow."""
        end = len(self._tokens)
        while end and self._tokenizer.is_byte(self._tokens[end - 1]):
            end -= 1
        return self._tokens[:end]

    def _forget(self) -> None:
        """Drop tokens that can have no effect on later ones, so that a token costs the same in a long answer."""
        text = self._tokenizer.decode_raw(self._tokens[-_CONTEXT:])
        if text:
            self._tokens, self._given = self._tokens[-_CONTEXT:], len(text)

    def _clean(self, piece: str, last: bool = False) -> str:
        for stage in self._stages:
            piece = stage.add(piece, last)
        return piece


class _Replacement:
    """``str.replace`` of a text that arrives in pieces."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new, self._kept = old, new, ""

    def add(self, piece: str, last: bool) -> str:
        *done, rest = (self._kept + piece).split(self._old)
        starts = (length for length in range(len(self._old) - 1, 0, -1) if rest.endswith(self._old[:length]))
        kept = 0 if last else next(starts, 0)
        self._kept = rest[len(rest) - kept :]
        return self._new.join([*done, rest[: len(rest) - kept]])
