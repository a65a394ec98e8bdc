"""Are the files there that a checkpoint needs beside its configuration and its weights? Each is named that is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmedge.core.strict_json import read_json
from mmedge.errors import ModelError

PREPARED, TOGETHER = "preprocessor_config.json", "processor_config.json"
"""How pictures or sounds are read; newer checkpoints have it inside the second."""
PARTS = {"image_processor": "how pictures are scaled and cut", "feature_extractor": "what is heard of sounds"}
"""Of the second, and what they say."""
VOCABULARIES = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt")
"""One of these; the first is what `transformers` writes today."""
SOMETIMES = (TOGETHER, "tokenizer_config.json")


def check_complete(folder: Path, reads: Sequence[str] = ("image",)) -> None:
    """Refuse a checkpoint without what the processor of a model is made of that ``reads`` these modalities.

    Raises:
        ModelError: naming the file.
    """
    part = "feature_extractor" if "image" not in reads else "image_processor"
    if not (folder / PREPARED).is_file() and not _says_all(folder / TOGETHER, part):
        raise ModelError(
            f"`{folder}` has no {PREPARED}, which says {PARTS[part]}",
            hint="copy it from where the checkpoint is from",
        )
    if not any(path for pattern in VOCABULARIES for path in folder.glob(pattern)):
        raise ModelError(
            f"`{folder}` has no {VOCABULARIES[0]}, which holds the vocabulary",
            hint=f"copy it from where the checkpoint is from; {', '.join(VOCABULARIES[1:])} would do as well",
        )


def ask_for_missing(folder: Path) -> str:
    """A hint where a processor is not what the model needs: files that some processors do without and others do not."""
    missing = [name for name in SOMETIMES if not (folder / name).is_file()]
    if missing:
        return f"the checkpoint has no {' and no '.join(missing)}: copy what there is from where the checkpoint is from"
    return "do config.json and the processor's files belong together?"


def _says_all(path: Path, part: str) -> bool:
    """Whether the settings of all parts of the processor are in one file."""
    try:
        settings = read_json(path.read_bytes(), deepest=64) if path.is_file() else {}
    except (OSError, ValueError):
        return True  # a damaged file is another complaint
    return isinstance(settings, dict) and part in settings
