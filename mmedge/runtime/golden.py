"""Recorded requests: what the bundle was fed and answered when it was made, to be compared with what a device gives."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from mmedge.core.bundle import Bundle, Golden
from mmedge.core.family import Prompt, Request, Sound
from mmedge.core.ports import Tensors
from mmedge.errors import BundleError, InputError
from mmedge.media.audio import check_sound
from mmedge.media.image import decode_picture
from mmedge.runtime.decode import decode, picking
from mmedge.runtime.engine import Engine

MOST_ELEMENTS = 4096
"""Of an output; a longer one is recorded as every k-th element (the cross-attention of BLIP-base alone is 42 MB)."""

MOST_BYTES = 4 << 20
"""Of the pictures of one sample that a bundle carries as numbers."""

PICTURE, SOUND = "picture.png", "sound.npz"
"""Files of a sample, which has one of them."""

LIMIT = 16
"""Tokens of a recorded answer."""


class Record(NamedTuple):
    """An answer as numbers: thinned outputs by ``component/port``, and the tokens chosen greedily.

    Of the decoder, ``decoder/logits`` is what it said after the prompt, and ``decoder/logits.last`` after the whole
    answer, where all of its cache counts.
    """

    outputs: Tensors
    tokens: tuple[int, ...]


def record(engine: Engine, prompt: Prompt, written: Sequence[int] | None = None) -> Record:
    """Answer greedily and keep what every graph said.

    The logits are those after reading ``written``, an answer recorded elsewhere, whatever this engine would choose;
    without it, after its own answer.
    """
    values = engine.encode(prompt)
    named = {
        f"{graph.component}/{port.name}": values[port.name]
        for graph in engine.once
        for port in graph.outputs
        if port.name in values
    }
    tokens, said = _answer(engine, prompt, values, written) if engine.each_step else ((), {})
    return Record({name: thinned(tensor) for name, tensor in (named | said).items()}, tokens)


def _answer(
    engine: Engine, prompt: Prompt, values: Tensors, written: Sequence[int] | None
) -> tuple[tuple[int, ...], Tensors]:
    engine.begin(values)
    limit = min(LIMIT, prompt.capacity - len(prompt.tokens))
    tokens = tuple(decode(engine.choose, prompt, limit=limit))
    engine.begin(values)
    first, last = _read(engine, prompt, tokens if written is None else written)
    said: Tensors = {}
    for graph in engine.each_step:
        if graph.cache:
            said |= {f"{graph.component}/logits": first, f"{graph.component}/logits.last": last}
    return tokens, said


def _read(engine: Engine, prompt: Prompt, written: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Logits after the prompt, and after every token of ``written``, read one by one as if just chosen."""
    following = iter((*written, 0))
    steps: list[np.ndarray] = []

    def follow(logits: np.ndarray) -> int:
        steps.append(logits)
        return next(following)

    list(decode(picking(engine.step, follow), prompt, stop=(), limit=len(written) + 1))
    return steps[0], steps[-1]


def prompt_arrays(prompt: Prompt) -> Tensors:
    """All tensors of a prompt by name: inputs of graphs by port, those of look 3 as ``look.3.<port>``, ``tokens`` if
    there are any, ``positions``, ``along.<port>``, and places as ``places.<value>.<port>``."""
    arrays = {**prompt.feeds}
    if prompt.tokens.size:
        arrays["tokens"] = prompt.tokens
    arrays |= {f"look.{index}.{name}": array for index, look in enumerate(prompt.looks) for name, array in look.items()}
    arrays |= {f"along.{name}": array for name, array in prompt.along.items()}
    arrays |= {f"places.{each.value}.{each.into}": each.places for each in prompt.insertions}
    return arrays if prompt.positions is None else arrays | {"positions": prompt.positions}


def with_arrays(prompt: Prompt, arrays: Tensors) -> Prompt:
    """The prompt with the tensors that `prompt_arrays` would give of another one of the same form."""

    def named(prefix: str, old: Tensors) -> Tensors:
        return {name: arrays[f"{prefix}{name}"] for name in old}

    return replace(
        prompt,
        feeds=named("", prompt.feeds),
        tokens=arrays.get("tokens", prompt.tokens),
        looks=tuple(named(f"look.{index}.", look) for index, look in enumerate(prompt.looks)),
        along=named("along.", prompt.along),
        insertions=tuple(
            replace(each, places=arrays[f"places.{each.value}.{each.into}"]) for each in prompt.insertions
        ),
        positions=arrays.get("positions"),
    )


def stored(arrays: Tensors) -> Tensors:
    """What a golden sample keeps of a prompt: where floating-point inputs are larger than `MOST_BYTES`, only some of
    their elements (`thinned`), enough to tell whether this device prepares them alike."""
    numbers = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
    if sum(array.nbytes for array in numbers.values()) <= MOST_BYTES:
        return arrays
    return arrays | {name: thinned(array) for name, array in numbers.items()}


def thinned(tensor: np.ndarray) -> np.ndarray:
    """At most `MOST_ELEMENTS` elements of ``tensor``, evenly spread over its flat form."""
    return tensor.ravel()[:: -(-tensor.size // MOST_ELEMENTS) or 1]


def sound_to_bytes(sound: Sound) -> bytes:
    """As a device without any codec reads it."""
    return to_bytes({"samples": sound.samples, "rate": np.array(sound.rate, np.int64)})


def sound_from_bytes(data: bytes, name: str) -> Sound:
    """What `sound_to_bytes` made, in a bundle that may come from anyone.

    Raises:
        BundleError: it holds anything else.
    """
    tensors = from_bytes(data, name)
    try:
        return check_sound(Sound(tensors["samples"], int(tensors["rate"])), name)
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise BundleError(f"`{name}` holds no sound", hint="export the bundle again") from error


def asked(bundle: Bundle, golden: Golden) -> Request:
    """What a golden sample asks, with its picture or its sound.

    Raises:
        BundleError: the sound cannot be used.
        InputError: the picture cannot be decoded.
    """
    picture, sound = f"{golden.path}/{PICTURE}", f"{golden.path}/{SOUND}"
    if sound in bundle.manifest.files:
        return Request(text=golden.question, sounds=(sound_from_bytes(bundle.read(sound), sound),))
    return Request((decode_picture(bundle.read(picture), picture).pixels,), golden.question)


def to_bytes(tensors: Tensors) -> bytes:
    """As an uncompressed ``.npz``, the same bytes for the same tensors."""
    file = io.BytesIO()
    np.savez(file, **{name.replace("/", ":"): tensor for name, tensor in sorted(tensors.items())})  # type: ignore[arg-type]
    return file.getvalue()


def from_bytes(data: bytes, name: str) -> Tensors:
    """The tensors of an ``.npz`` of a bundle, which may come from anyone.

    Raises:
        BundleError: it is damaged, compressed (a bomb could be), encrypted, or holds anything but plain arrays.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {key.replace(":", "/"): file[key] for key in file.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):  # numpy hands out other files as bytes
            raise ValueError("not arrays")
        return arrays
    except Exception as error:  # zipfile and numpy raise nearly every kind there is on what a stranger wrote
        raise BundleError(f"`{name}` holds no plain arrays", hint="export the bundle again") from error
