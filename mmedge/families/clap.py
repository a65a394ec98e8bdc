"""CLAP: sounds and texts in one space (Wu et al. 2022, https://arxiv.org/abs/2211.06687).

Of a sound that is longer than the model hears at once, the checkpoint's own extractor takes parts by chance; here they
are the middle ones. Models that fuse parts with the whole do so for short sounds too, as the extractor has it for a
sound alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.family import Component, Config, Family, Prompt, Request, Sound
from mmedge.core.ports import Port, Span, Tensors
from mmedge.core.similarity import Similarity
from mmedge.families import _bert as bert
from mmedge.families import _dual_encoder as shared
from mmedge.families import _windows as windows
from mmedge.media.audio import resample
from mmedge.media.mel import Mel, log_mel

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

VIEWS = 4
"""Of a sound where they are fused: all of it, compressed, and a part of each third."""


def components(config: Config) -> tuple[Component, ...]:
    """``audio`` and ``text``."""
    model, audio = config["model"], config["audio"]
    bands, views = model["audio_config"]["num_mel_bins"], VIEWS if model["audio_config"]["enable_fusion"] else 1
    return (
        Component(
            name="audio",
            forward=_hear,
            inputs=(Port("input_features", "float32", ("batch", views, _frames(audio), bands)),),
            outputs=(shared.embeds("audio", model["projection_dim"]),),
            sizes={"batch": shared.BATCH},
        ),
        Component(
            name="text",
            forward=_read,
            inputs=(
                Port("text_ids", "int64", ("batch", "text_length")),
                Port("text_mask", "int64", ("batch", "text_length")),
            ),
            outputs=(shared.embeds("text", model["projection_dim"]),),
            sizes={"batch": shared.BATCH, "text_length": Span(1, 16, _most_tokens(config))},
        ),
    )


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Sounds as the checkpoint's extractor makes them, and the text with the tokens around it."""
    shared.refuse_others(request, ("audio", "text"))
    feeds: Tensors = {}
    if request.sounds:
        feeds["input_features"] = np.stack([features(sound, config["audio"]) for sound in request.sounds])
    if request.text is not None:
        ids = shared.token_ids(config, tokenizer, request.text, _most_tokens(config))
        feeds["text_ids"] = np.array([ids], np.int64)
        feeds["text_mask"] = np.ones_like(feeds["text_ids"])
    return Prompt(feeds)


def features(sound: Sound, audio: Config) -> np.ndarray:
    """Log-mel spectrograms, float32 ``[views, frames, bands]``."""
    fuses, longest = audio["truncation"] == "fusion", _longest(audio)
    mel = Mel(
        rate=audio["sampling_rate"],
        size=audio["fft_window_size"],
        hop=audio["hop_length"],
        bands=audio["feature_size"],
        low=audio["frequency_min"],
        high=audio["frequency_max"],
        scale="htk" if fuses else "slaney",
    )
    samples = resample(sound, mel.rate).samples
    if not fuses:
        samples = middle(samples, longest)
    whole = log_mel(_filled(samples, longest, audio["padding"]), mel)
    return _views(whole, _frames(audio)) if fuses else whole[None]


def middle(samples: np.ndarray, longest: int) -> np.ndarray:
    """What is left of a sound where its ends are too much."""
    begin = max(0, len(samples) - longest) // 2
    return samples[begin : begin + longest]


def _filled(samples: np.ndarray, longest: int, padding: str) -> np.ndarray:
    """Repeated, with silence behind or cut at the end, where a sound is shorter."""
    if len(samples) >= longest:
        return samples
    times = longest // len(samples)
    if padding == "repeat":
        return np.tile(samples, times + 1)[:longest]
    samples = np.tile(samples, times) if padding == "repeatpad" else samples
    return np.pad(samples, (0, longest - len(samples)))


def _views(whole: np.ndarray, frames: int) -> np.ndarray:
    """``[views, frames, bands]``."""
    if len(whole) == frames:
        return np.stack([whole] * VIEWS)
    thirds = np.array_split(np.arange(len(whole) - frames + 1), VIEWS - 1)
    begins = [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]
    return np.stack([_compressed(whole, frames), *(whole[begin : begin + frames] for begin in begins)])


def _compressed(whole: np.ndarray, frames: int) -> np.ndarray:
    """By linear interpolation, at places that are rounded as torch rounds them: once, to float32."""
    scale = float(np.float32(len(whole) / frames))
    places = np.maximum(0, (np.arange(frames) + 0.5) * scale - 0.5).astype(np.float32)
    before = places.astype(np.int64)
    share = (places - before.astype(np.float32))[:, None]
    after = np.minimum(before + 1, len(whole) - 1)
    return np.asarray(whole[before] * (1 - share) + whole[after] * share, np.float32)


def _longest(audio: Config) -> int:
    """Samples that are heard at once."""
    return int(audio["max_length_s"] * audio["sampling_rate"])


def _frames(audio: Config) -> int:
    return _longest(audio) // int(audio["hop_length"]) + 1


def _most_tokens(config: Config) -> int:
    """Positions begin after the number of the padding."""
    text = config["model"]["text_config"]
    return int(text["max_position_embeddings"] - text["pad_token_id"] - 1)


# What follows runs only while exporting, on the modules of `transformers`.


def _hear(model: Any, input_features: torch.Tensor) -> tuple[torch.Tensor]:
    tower = model.audio_model.audio_encoder
    normal = tower.batch_norm(input_features.transpose(1, 3)).transpose(1, 3)
    hidden = _patches(tower.patch_embed, _square(normal, tower.spec_size, tower.freq_ratio)).permute(0, 2, 3, 1)
    hidden = tower.patch_embed.norm(hidden)
    for layer in tower.layers:
        hidden = windows.stage(layer.blocks, hidden)
        hidden = windows.merge(layer.downsample, hidden) if layer.downsample is not None else hidden
    heard = tower.norm(hidden).mean((1, 2))
    return (shared.unit(model.audio_projection(heard)),)


def _square(spectrograms: torch.Tensor, side: int, folds: int) -> torch.Tensor:
    """``[batch, views, side, side]``: stretched in time, cut into ``folds`` pieces, one above the other."""
    spectrograms = _stretched(_stretched(spectrograms, 2, side * folds), 3, side // folds)
    return spectrograms.unflatten(2, (folds, side)).transpose(3, 4).flatten(2, 3)


def _stretched(values: torch.Tensor, axis: int, length: int) -> torch.Tensor:
    """By cubic convolution between the ends (Keys 1981, with a = -0.75 as torch has it), spelled out: TensorRT resizes
    by lines alone."""
    import torch

    if (own := values.shape[axis]) == length:
        return values
    places = torch.arange(length, dtype=torch.float64) * ((own - 1) / max(1, length - 1))
    before = places.floor()
    share, steep = places - before, -0.75
    near = [((steep + 2) * far - (steep + 3)) * far**2 + 1 for far in (share, 1 - share)]
    wide = [((steep * far - 5 * steep) * far + 8 * steep) * far - 4 * steep for far in (1 + share, 2 - share)]
    column = [1] * axis + [length] + [1] * (values.ndim - axis - 1)
    parts = [
        values.index_select(axis, (before.long() + offset).clamp(0, own - 1)) * weight.float().reshape(column)
        for offset, weight in zip((-1, 0, 1, 2), (wide[0], *near, wide[1]), strict=True)
    ]
    return parts[0] + parts[1] + parts[2] + parts[3]


def _patches(embed: Any, views: torch.Tensor) -> torch.Tensor:
    """``[batch, width, rows, columns]``, of all of a sound; where parts are heard too, together with those."""
    import torch

    whole = embed.proj(views[:, :1])
    if not embed.enable_fusion:
        return whole
    parts = embed.mel_conv2d(views[:, 1:].flatten(0, 1)[:, None]).unflatten(0, (-1, VIEWS - 1))
    beside = parts.permute(0, 2, 3, 1, 4).flatten(3)
    beside = torch.nn.functional.pad(beside, (0, whole.shape[-1] - beside.shape[-1]))
    return embed.fusion_model(whole, beside)


def _read(model: Any, text_ids: torch.Tensor, text_mask: torch.Tensor) -> tuple[torch.Tensor]:
    tower = model.text_model
    hidden = bert.read(tower, text_ids, text_mask, first=tower.config.pad_token_id + 1)
    return (shared.unit(model.text_projection(bert.pooled(tower, hidden))),)


def similarity(model: Any) -> Similarity:
    """Of sounds to texts; texts to sounds have a scale of their own, which was only trained with."""
    return Similarity(float(model.logit_scale_a.detach().exp()))


def reference(model: Any, processor: Any, request: Request) -> Tensors:
    """What the checkpoint's own extractor and forward pass make of sounds, and of a text if there is one."""
    import torch

    inputs = processor.tokenizer([request.text or ""], return_tensors="pt")
    made = [spectrograms(processor, sound) for sound in request.sounds]
    sounds = {name: torch.from_numpy(np.concatenate([each[name] for each in made])) for name in made[0]}
    with torch.inference_mode():
        outputs = model(**inputs, **sounds)
    names = ("audio_embeds", *(("text_embeds",) if request.text is not None else ()))
    return {name: np.asarray(outputs[name]) for name in names}


def spectrograms(processor: Any, sound: Sound) -> Tensors:
    """What the checkpoint's own extractor makes of a sound alone."""
    extractor = processor.feature_extractor
    rate = extractor.sampling_rate
    with _in_the_middle():
        made = extractor(resample(sound, rate).samples, sampling_rate=rate, return_tensors="np")
    return {name: np.asarray(value) for name, value in made.items()}


@contextmanager
def _in_the_middle() -> Iterator[None]:
    """Where the extractor would draw a number, it gets the one in the middle."""
    random: Any = np.random
    choice, randint = random.choice, random.randint
    random.choice, random.randint = (lambda places: places[len(places) // 2]), (lambda low, high: (low + high - 1) // 2)
    try:
        yield
    finally:
        random.choice, random.randint = choice, randint


_TINY: dict[str, Any] = {
    "model_type": "clap",
    "architectures": ["ClapModel"],
    "projection_dim": 24,
    "text_config": {
        "vocab_size": 288,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 80,
        "initializer_factor": 3.0,
    },
}
_TINY_AUDIO: dict[str, Any] = {
    "spec_size": 128,
    "hidden_size": 64,
    "patch_embeds_hidden_size": 16,
    "depths": [2, 1, 2],
    "num_attention_heads": [2, 2, 4],
    "num_hidden_layers": 3,
    "initializer_factor": 3.0,
}

FAMILY = Family(
    name="clap",
    architectures=("ClapModel",),
    tasks=shared.tasks,
    components=components,
    prepare=prepare,
    reference=reference,
    pixels=lambda processor, sound: (spectrograms(processor, sound),),
    similarity=similarity,
    reads=lambda config: ("audio", "text"),
    tiny=(
        {**_TINY, "audio_config": _TINY_AUDIO},
        {**_TINY, "audio_config": {**_TINY_AUDIO, "enable_fusion": True}},
    ),
)
