"""The weights of a checkpoint: safetensors files, each one checked before a tensor of it is read.

`transformers` is handed the tensors and never the folder: there it would also look for adapters, for files that the
configuration names and for weights in other formats, some of them pickles.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mmedge.core.strict_json import read_json
from mmedge.errors import ModelError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
FLOATS = ("F64", "F32", "F16", "BF16")
LONGEST_HEADER = 25 << 20
"""Bytes; a model of ten thousand tensors needs one megabyte."""
MOST_TENSORS = 50_000
_PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How files of `torch.save` and of `pickle` begin."""


def weight_files(folder: Path) -> tuple[Path, ...]:
    """``model.safetensors``, or the files that its index lists; none where the checkpoint is only a configuration.

    Raises:
        ModelError: there are pickles instead, or the index lists what is not there.
    """
    if (folder / SINGLE).exists():
        return (folder / SINGLE,)
    if (folder / INDEX).exists():
        return _indexed(folder)
    if other := next(iter(sorted(folder.glob("*.safetensors"))), None):
        raise ModelError(f"`{other}` is not called `{SINGLE}`, and `{folder}` has no `{INDEX}`")
    refuse_pickles(sorted(folder.iterdir()))
    return ()


def refuse_pickles(files: Sequence[Path]) -> None:
    """Of a checkpoint's files: pickles beside safetensors are never read, pickles alone are refused by name."""
    if any(path.suffix == ".safetensors" for path in files):
        return
    if pickle := next((path for path in files if path.suffix in PICKLES), None):
        raise _pickle(pickle)


def read_tensors(folder: Path) -> dict[str, Any]:
    """Every tensor of the checkpoint by its name.

    Raises:
        ModelError: there are no weights, or a file is damaged.
    """
    files = weight_files(folder)
    if not files:
        raise ModelError(f"`{folder}` has no weights ({SINGLE})")
    tensors: dict[str, Any] = {}
    for path in files:
        _check_header(path)
        try:
            # By its descriptor, because the library refuses paths that are no UTF-8.
            with path.open("rb") as opened, safe_open(f"/dev/fd/{opened.fileno()}", framework="pt") as file:
                names: list[str] = file.keys()
                found = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise _damaged(path, first_line(error)) from error
        if twice := tensors.keys() & found.keys():
            raise ModelError(f"`{path}` has the tensor `{min(twice)}`, which another file has too")
        tensors |= found
    return tensors


def refuse_nonfinite(tensors: dict[str, Any], folder: Path) -> None:
    """Refuse weights that are not numbers.

    Raises:
        ModelError: naming the first tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(
                f"the weight `{name}` in `{folder}` has values that are not finite",
                hint="is the file damaged? `--allow-nonfinite` exports it all the same",
            )


def first_line(error: BaseException) -> str:
    """What a library says, short enough for one line; the line after one that only announces it."""
    first, _, rest = str(error).strip().partition("\n")
    said = f"{first} {rest.strip().partition(chr(10))[0]}" if first.endswith(":") and rest.strip() else first
    return said.rstrip(".")[:300] or type(error).__name__


def _indexed(folder: Path) -> tuple[Path, ...]:
    index = folder / INDEX
    try:
        names = sorted(set(read_json(index.read_bytes(), deepest=4)["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"`{index}` lists no files of weights: {first_line(error)}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(f"`{index}` names `{name}`, which is no safetensors file beside it")
        if not (folder / name).is_file():
            raise ModelError(f"`{folder / name}` is missing, `{INDEX}` names it")
    return tuple(folder / name for name in names)


def _check_header(path: Path) -> None:
    """What the library would not notice, or would need too much memory for."""
    header = _header(path)
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise _damaged(path, "its header does not describe tensors")
    if len(header) > MOST_TENSORS:
        raise ModelError(f"`{path}` has {len(header)} tensors, at most {MOST_TENSORS} are read")
    for name, entry in header.items():
        if name.endswith((".weight", ".bias")) and entry.get("dtype") not in FLOATS:
            raise ModelError(
                f"the weight `{name}` in `{path}` is of type {entry.get('dtype')}, expected {', '.join(FLOATS)}",
                hint="export the checkpoint that this one was quantized from",
            )


def _header(path: Path) -> Any:
    if not path.is_file():  # a FIFO would be waited for
        raise ModelError(f"`{path}` is no file")
    with path.open("rb") as file:
        start, rest = file.read(9), max(path.stat().st_size - 8, 0)
        if start.startswith(_PICKLED) and start[8:] != b"{":
            raise _pickle(path)
        length = int.from_bytes(start[:8], "little")
        if not 1 < length <= min(rest, LONGEST_HEADER):
            raise _damaged(path, f"its header would be {length} bytes long, {rest} are left in the file")
        file.seek(8)
        try:
            return read_json(file.read(length), deepest=4)
        except ValueError as error:
            raise _damaged(path, f"its header cannot be read: {first_line(error)}") from error


def _damaged(path: Path, reason: str) -> ModelError:
    return ModelError(f"`{path}` is damaged: {reason}", hint="fetch the file again")


def _pickle(path: Path) -> ModelError:
    return ModelError(
        f"`{path}` is a pickle file, which can run code when it is loaded",
        hint="on a machine you can lose: load it with `transformers`, then `model.save_pretrained(FOLDER)`",
    )
