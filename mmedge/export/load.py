"""A checkpoint in the Hugging Face layout: safetensors only, no remote code.

A checkpoint may come from anyone. Its JSON configures and its tensors fill; nothing in it runs, and there is no code
path here that unpickles.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from msgspec import to_builtins
from transformers.processing_utils import ProcessorMixin

from mmedge.core.family import MODALITIES, Config, Family
from mmedge.errors import ModelError
from mmedge.export.chat_template import slots_of
from mmedge.export.complete import ask_for_missing, check_complete
from mmedge.export.known import family_of
from mmedge.export.outline import outline
from mmedge.export.vocabulary import vocabulary
from mmedge.export.weights import first_line, read_tensors, refuse_nonfinite, weight_files
from mmedge.media.text import Tokenizer

REMOTE_CODE = ("auto_map", "trust_remote_code", "custom_pipelines", "custom_generate")
RUN_OPTIONS = ("attn_implementation", "experts_implementation", "kernel_config", "use_kernels")
"""How somebody wants `transformers` to compute; some of these name native code on the Hub."""

COMPLAINTS = {
    "missing_keys": "lacks {} of the model's tensors",
    "mismatched_keys": "has {} of the model's tensors in another shape",
    "unexpected_keys": "has {} tensors that the model has no place for",
}
"""What `transformers` would only warn about; each makes another model than was trained."""


PARTS = {"image": "image_processor", "audio": "feature_extractor"}
"""Of a processor, by what they read."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's files, read and checked but for its weights."""

    folder: Path
    family: Family
    config: Config
    """``model``, ``image``, ``audio``, ``text`` and ``generation``, with every default of `transformers` spelled
    out."""
    processor: Any
    """The checkpoint's own processor, which ours is compared with."""

    outline: Any
    """The model without its weights."""

    @cached_property
    def vocabulary(self) -> bytes:
        """tokenizer.json, as `mmedge.export.vocabulary` makes it."""
        return vocabulary(self.processor.tokenizer)

    @property
    def tokenizer(self) -> Tokenizer:
        """Ours, with the checkpoint's vocabulary."""
        return Tokenizer(self.vocabulary, clean_up_spaces=self.config["text"]["clean_up_tokenization_spaces"])

    @property
    def weights_bytes(self) -> int:
        return sum(path.stat().st_size for path in weight_files(self.folder))


def read_checkpoint(folder: Path) -> Checkpoint:
    """Everything but the weights, which need not be there yet: enough to plan and to refuse.

    Raises:
        ModelError: a pickle, remote code, an unsupported kind of model, or a damaged file.
        ResourceError: the configuration describes something larger than any model.
    """
    raw = _read_object(folder / "config.json")
    _refuse_remote_code(folder)
    weight_files(folder)
    family = family_of(raw, folder)
    reads = family.reads({"model": raw})
    check_complete(folder, reads)
    with _quiet():
        settings = _settings(raw, folder)
        empty = outline(getattr(transformers, raw["architectures"][0]), settings, folder)
        processor = _load_processor(folder, reads)
    generation = folder / "generation_config.json"
    text: dict[str, Any] = {"clean_up_tokenization_spaces": bool(processor.tokenizer.clean_up_tokenization_spaces)}
    if (filler := processor.tokenizer.pad_token_id) is not None:
        text |= {"pad_token_id": int(filler), "padding_side": processor.tokenizer.padding_side}
    if token := image_token(processor):
        text |= {"image_token": token, "chat": to_builtins(slots_of(processor, token))}
    if video_token := getattr(processor, "video_token", None):
        text |= {"video_token": str(video_token)}
    config = {
        "model": json.loads(settings.to_json_string(use_diff=False)) | {"architectures": raw["architectures"]},
        "image": _part_settings(processor, PARTS["image"]),
        "audio": _part_settings(processor, PARTS["audio"]),
        "video": _video_settings(folder),
        "text": text,
        "generation": _read_object(generation) if generation.exists() else {},
        "processor": _processor_settings(processor),
    }
    return Checkpoint(folder, family, config, processor, empty)


def load_model(checkpoint: Checkpoint, *, allow_nonfinite: bool = False) -> Any:
    """The torch model in float32, every weight found and finite.

    Raises:
        ModelError: a damaged or incomplete safetensors file, or a weight that is not a number.
    """
    folder, empty = checkpoint.folder, checkpoint.outline
    tensors = read_tensors(folder)
    if not allow_nonfinite:
        refuse_nonfinite(tensors, folder)
    try:
        with _quiet():
            model, found = type(empty).from_pretrained(
                None,
                config=empty.config,
                state_dict=tensors,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
            if generation := checkpoint.config["generation"]:
                model.generation_config = transformers.GenerationConfig.from_dict(generation)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"the weights in `{folder}` cannot be loaded: {first_line(error)}") from error
    for kind, complaint in COMPLAINTS.items():
        if names := sorted(found[kind]):
            raise ModelError(
                f"`{folder}` {complaint.format(len(names))}, the first is {_named(names[0])}",
                hint="is config.json that of these weights?",
            )
    return model.eval()


def _named(tensor: Any) -> str:
    """A tensor, with its shape and that of the model where they differ."""
    if isinstance(tensor, str):
        return f"`{tensor}`"
    name, has, wanted = tensor
    return f"`{name}`: {list(has)}, by config.json {list(wanted)}"


def _read_json(path: Path) -> Any:
    try:
        if not path.is_file():  # a FIFO would be waited for
            raise ModelError(f"`{path.parent}` has no {path.name}", hint="is it a Hugging Face checkpoint?")
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read `{path}`: {first_line(error)}") from error


def _read_object(path: Path) -> dict[str, Any]:
    value = _read_json(path)
    if not isinstance(value, dict):
        raise ModelError(f"`{path}` is not a JSON object")
    return value


def _refuse_remote_code(folder: Path) -> None:
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(".index.json") or path.name == "tokenizer.json":
            continue
        if key := _remote_code(_read_json(path)):
            raise ModelError(
                f"`{path}` asks for code of its own to be run (`{key}`)",
                hint="mmedge runs no remote code; export the architecture from the `transformers` library",
            )


def _remote_code(value: Any) -> str | None:
    """The first key at any depth that makes `transformers` run a checkpoint's own Python."""
    if isinstance(value, dict):
        own = next((key for key in REMOTE_CODE if value.get(key)), None)
        return own or next((key for item in value.values() if (key := _remote_code(item))), None)
    if isinstance(value, list):
        return next((key for item in value if (key := _remote_code(item))), None)
    return None


def _settings(raw: dict[str, Any], folder: Path) -> Any:
    """config.json as `transformers` understands it, with its defaults filled in."""
    try:
        return transformers.AutoConfig.for_model(**_without_run_options(raw))
    except Exception as error:  # config classes raise what their validators raise
        raise ModelError(f"`{folder / 'config.json'}` is not valid: {first_line(error)}") from error


def _without_run_options(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_run_options(item) for key, item in value.items() if key.lstrip("_") not in RUN_OPTIONS}
    return value


def image_token(processor: Any) -> str | None:
    """How the place of a picture is written in a prompt; None where pictures are not part of the text."""
    token = getattr(processor, "image_token", None)
    return str(getattr(token, "content", token)) if token else None


def _processor_settings(processor: Any) -> dict[str, Any]:
    """Numbers and words of the processor itself, such as how many tokens stand for a picture and what goes around."""
    if not hasattr(processor, "to_dict"):
        return {}
    return {
        key: value
        for key, value in {**vars(processor), **processor.to_dict()}.items()
        if isinstance(value, (bool, int, float, str)) and key != "chat_template"
    }


class NoVideos(dict[str, Any]):
    """In place of the part of a processor that reads videos, for which `transformers` wants torchvision: here a video
    is its frames, and these are pictures. Empty where processors tell of themselves."""

    num_frames = fps = None

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> NoVideos:
        return cls()


@contextmanager
def without_videos() -> Iterator[None]:
    """Make processors without the part for videos."""
    # As `from ... import` the library gives a stand-in where torchvision is missing.
    video_processing_auto: Any = import_module("transformers.models.auto.video_processing_auto")
    check, auto = ProcessorMixin.check_argument_for_proper_class, video_processing_auto.AutoVideoProcessor

    def checked(self: Any, name: str, argument: Any) -> Any:
        return None if isinstance(argument, NoVideos) else check(self, name, argument)

    ProcessorMixin.check_argument_for_proper_class, video_processing_auto.AutoVideoProcessor = checked, NoVideos
    try:
        yield
    finally:
        ProcessorMixin.check_argument_for_proper_class, video_processing_auto.AutoVideoProcessor = check, auto


def _load_processor(folder: Path, reads: Sequence[str]) -> Any:
    try:
        with without_videos():
            processor = transformers.AutoProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # processors raise whatever their many parts raise
        raise ModelError(
            f"the processor of `{folder}` cannot be loaded: {first_line(error)}", hint=ask_for_missing(folder)
        ) from error
    for modality in PARTS.keys() & set(reads):
        if not hasattr(processor, PARTS[modality]):
            raise ModelError(
                f"`{folder}` does not say how to process {MODALITIES[modality]}",
                hint="is preprocessor_config.json missing?",
            )
    vocabularies = sorted(processor.tokenizer.vocab_files_names.values())
    if not any((folder / name).is_file() for name in vocabularies):  # the library would make an empty one
        raise ModelError(f"`{folder}` has no vocabulary", hint=f"one of these is missing: {', '.join(vocabularies)}")
    return processor


def _part_settings(processor: Any, part: str) -> dict[str, Any]:
    """What a part of the processor really does: a checkpoint's file may leave out what its class fills in. Empty where
    there is none."""
    settings: dict[str, Any] = json.loads(getattr(processor, part).to_json_string()) if hasattr(processor, part) else {}
    return {key: value for key, value in settings.items() if value is not None}


def _video_settings(folder: Path) -> dict[str, Any]:
    """What the files say of videos, in the order in which `transformers` looks; empty where they say nothing."""
    together, own = folder / "processor_config.json", folder / "video_preprocessor_config.json"
    settings = _read_object(together).get("video_processor") if together.exists() else None
    settings = settings or (_read_object(own) if own.exists() else {})
    return {key: value for key, value in settings.items() if value is not None}


@contextmanager
def _quiet() -> Iterator[None]:
    """What the library only warns about is an error here, said in one line."""
    log = transformers.utils.logging
    before, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(before)
        if bars:
            log.enable_progress_bar()
