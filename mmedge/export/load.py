"""A checkpoint in the Hugging Face layout, from a folder, the Hub or mmedge itself: safetensors only, no remote code.

A checkpoint may come from anyone. Its JSON configures and its tensors fill; nothing in it runs, and there is no code
path here that unpickles.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmedge.core import find
from mmedge.core.family import Config, Family
from mmedge.errors import DownloadError, MmedgeError, ModelError, UsageError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model")
REMOTE_CODE = ("auto_map", "trust_remote_code", "custom_pipelines")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's files, read and checked but for its weights."""

    folder: Path
    family: Family
    config: Config
    """``model``, ``image``, ``text`` and ``generation``, with every default of `transformers` spelled out."""
    processor: Any
    """The checkpoint's own processor, which ours is compared with."""

    @property
    def architecture(self) -> str:
        return str(self.config["model"]["architectures"][0])

    @property
    def weights_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))


def find_checkpoint(model: str, revision: str = "main") -> Path:
    """The folder of ``builtin:NAME``, of a local checkpoint, or of a Hub name (downloaded to the Hub's own cache).

    Raises:
        UsageError: it is none of these.
        DownloadError: the Hub has no such model or cannot be reached.
    """
    kind, _, name = model.partition(":")
    if kind == "builtin" and name:
        folder = find.PACKAGE / "builtin" / name / "checkpoint"
        if not folder.is_dir():
            known = sorted(path.parent.name for path in (find.PACKAGE / "builtin").glob("*/checkpoint"))
            raise UsageError(f"no built-in model is called `{name}`", hint=f"known: {', '.join(known)}")
        return folder
    if Path(model).is_dir():
        return Path(model).resolve()
    if Path(model).exists():
        raise UsageError(f"`{model}` is a file, a checkpoint is a folder")
    if HUB_NAME.fullmatch(model):
        return _download(model, revision)
    raise UsageError(f"`{model}` is no folder and no Hub name", hint="a Hub name looks like `owner/name`")


def read_checkpoint(folder: Path) -> Checkpoint:
    """Everything but the weights: enough to plan and to refuse.

    Raises:
        ModelError: a pickle, remote code, an unsupported kind of model, or a damaged file.
    """
    raw = _read_json(folder / "config.json")
    _refuse_remote_code(folder)
    _refuse_pickle(folder)
    family = _family_of(raw, folder)
    model = _spell_out(raw, folder)
    processor = _load_processor(folder)
    generation = folder / "generation_config.json"
    config = {
        "model": model,
        "image": _image_settings(processor),
        "text": {"clean_up_tokenization_spaces": bool(processor.tokenizer.clean_up_tokenization_spaces)},
        "generation": _read_json(generation) if generation.exists() else {},
    }
    return Checkpoint(folder, family, config, processor)


def load_model(checkpoint: Checkpoint, *, allow_nonfinite: bool = False) -> Any:
    """The torch model in float32, every weight found and finite.

    Raises:
        ModelError: a damaged or incomplete safetensors file, or a weight that is not a number.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    loader = getattr(transformers, checkpoint.architecture)
    _check_headers(checkpoint.folder)
    try:
        model, found = loader.from_pretrained(
            checkpoint.folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except MmedgeError:
        raise
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"the weights in `{checkpoint.folder}` cannot be loaded: {_first_line(error)}") from error
    for kind in ("missing_keys", "mismatched_keys"):
        if names := sorted(map(str, found[kind])):
            raise ModelError(
                f"`{checkpoint.folder}` lacks {len(names)} of the model's tensors or has them in another shape, "
                f"the first is `{names[0]}`",
                hint="is config.json that of these weights?",
            )
    if not allow_nonfinite:
        _refuse_nonfinite(model)
    return model.eval()


def _download(model: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(WANTED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise DownloadError(
            f"cannot fetch `{model}` at `{revision}`: {_first_line(error)}",
            hint="without a network, give the folder of a checkpoint instead of its name",
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"`{path.parent}` has no {path.name}", hint="is it a Hugging Face checkpoint?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read `{path}`: {_first_line(error)}") from error
    if not isinstance(value, dict):
        raise ModelError(f"`{path}` is not a JSON object")
    return value


def _first(folder: Path, *names: str) -> Path:
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])


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


def _refuse_pickle(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    if pickle := next((path for path in sorted(folder.iterdir()) if path.suffix in PICKLES), None):
        raise ModelError(
            f"`{pickle}` is a pickle file, which can run code when it is loaded",
            hint="on a machine you can lose: load it with `transformers`, then `model.save_pretrained(FOLDER)`",
        )
    raise ModelError(f"`{folder}` has no weights (*.safetensors)")


def _family_of(raw: dict[str, Any], folder: Path) -> Family:
    kind, architectures = raw.get("model_type"), raw.get("architectures")
    if not isinstance(kind, str) or kind not in find.names("families"):
        raise ModelError(
            f"`{folder}` is a `{kind}` model, which mmedge does not know",
            hint=f"known: {', '.join(find.names('families'))}",
        )
    family = find.family(kind)
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    if named not in family.architectures:
        raise ModelError(
            f"`{folder}` is a `{named}`, which the family `{kind}` does not export",
            hint=f"it exports: {', '.join(family.architectures)}",
        )
    return family


def _spell_out(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """config.json with the defaults that `transformers` would fill in, as plain JSON."""
    from transformers import AutoConfig

    try:
        full = AutoConfig.for_model(**raw).to_json_string(use_diff=False)
    except Exception as error:  # config classes raise what their validators raise
        raise ModelError(f"`{folder / 'config.json'}` is not valid: {_first_line(error)}") from error
    config: dict[str, Any] = json.loads(full)
    return config | {"architectures": raw["architectures"]}


def _load_processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # processors raise whatever their many parts raise
        raise ModelError(f"the processor of `{folder}` cannot be loaded: {_first_line(error)}") from error


def _image_settings(processor: Any) -> dict[str, Any]:
    """What the picture processor really does: a checkpoint's file may leave out what its class fills in."""
    settings: dict[str, Any] = json.loads(processor.image_processor.to_json_string())
    return {key: value for key, value in settings.items() if value is not None}


def _check_headers(folder: Path) -> None:
    """Damage is named before `transformers` gets to wrap it."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"`{path}` is damaged: {_first_line(error)}") from error
        if len(names) > 50_000:
            raise ModelError(f"`{path}` has {len(names)} tensors, at most 50000 are read")


def _refuse_nonfinite(model: Any) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(
                f"the weight `{name}` has values that are not finite",
                hint="is the file damaged? `--allow-nonfinite` exports it all the same",
            )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
