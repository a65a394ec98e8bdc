"""Tiny checkpoints in the Hugging Face layout, made in a second: random weights, a tokenizer that reads letters.

Loaded by the fixture `tiny_checkpoint`, because test folders are no packages.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

SPECIAL = ("[PAD]", "[UNK]", "[DEC]", "[SEP]", "[CLS]", "[ENC]", "[MASK]")
"""As the tiny configs of `blip` number them: 0 pads, 2 begins a text and 3 ends it."""

SPREADS = {"word_embeddings": 0.3, "position_embedding": 2.0, "crossattention": 0.5, "transform": 0.5}
"""Standard deviations of weights; of all others, 0.25."""


def make_blip(config: dict[str, Any], folder: Path) -> Path:
    """Write model, tokenizer and processor of a `blip` config into ``folder``."""
    import transformers
    from transformers import BlipConfig, BlipImageProcessorPil, BlipProcessor

    transformers.utils.logging.disable_progress_bar()
    settings = {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
    kind = getattr(transformers, config["architectures"][0])
    _randomise(model := kind(BlipConfig(**settings)))
    model.save_pretrained(folder)
    side = config["vision_config"]["image_size"]
    size = {"height": side, "width": side}
    processor = BlipProcessor(BlipImageProcessorPil(size=size), make_tokenizer(config["text_config"]["vocab_size"]))
    processor.save_pretrained(folder)
    return folder


def make_tokenizer(size: int) -> Any:
    """A WordPiece tokenizer that spells words letter by letter."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertTokenizer

    letters = string.ascii_lowercase
    tokens = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *"?.,'-"][:size]
    assert len(tokens) == size
    tokenizer = Tokenizer(models.WordPiece({token: number for number, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    around = [(token, tokens.index(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    return BertTokenizer(tokenizer_object=tokenizer, bos_token="[DEC]", model_max_length=512)


def _randomise(model: Any) -> None:
    """Weights large enough that picture, position and last word decide the next one, as in a trained model."""
    import torch

    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.05, generator=generator)
            elif "norm" not in name.lower():
                spread = next((spread for part, spread in SPREADS.items() if part in name), 0.25)
                parameter.normal_(0, spread, generator=generator)
