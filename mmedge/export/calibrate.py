"""What components are really fed, recorded while the float graphs answer the calibration samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, overload

import numpy as np

from mmedge.backends._cache import FixedCache
from mmedge.core.backend import Session
from mmedge.core.bundle import Graph
from mmedge.core.ports import CacheShape, Port, Tensors, check_feeds
from mmedge.core.samples import Sample, doubt_samples
from mmedge.errors import InputError
from mmedge.export.examples import SKIP

PLACES = "logits_at"
"""See `core.family.STEP_INPUTS`."""

MOST_BYTES = 1 << 30
"""Of recorded tensors of one component, on disk; later answers are not recorded."""

Request = TypeVar("Request")


class Recording(Sequence[Tensors]):
    """Feeds of one component, each in a file of its own, so that no more than one is held in memory; those of an empty
    cache of ``shape`` are added to them."""

    def __init__(self, files: Sequence[Path], shape: CacheShape | None = None) -> None:
        self.files = tuple(files)
        self.shape = shape

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Tensors: ...
    @overload
    def __getitem__(self, index: slice) -> Recording: ...
    def __getitem__(self, index: int | slice) -> Tensors | Recording:
        if isinstance(index, slice):
            return Recording(self.files[index], self.shape)
        with np.load(self.files[index]) as tensors:
            feeds = dict(tensors)
        if self.shape:
            feeds |= _empty(self.shape.past())
        if self.shape and self.shape.capacity:
            feeds |= FixedCache(self.shape).steer(feeds["position_ids"].shape[-1])
        return feeds


class Spans:
    """Lowest and highest value of every float input, apart for each channel of pictures ``[1, channels, ...]``."""

    def __init__(self, component: str) -> None:
        self.component = component
        self.seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, name: str, tensor: np.ndarray) -> None:
        """Widen the spans of input ``name``.

        Raises:
            InputError: a value is not finite.
        """
        if not np.issubdtype(tensor.dtype, np.floating) or not tensor.size:
            return
        axes = (0, 2, 3) if tensor.ndim == 4 else None
        low, high = np.asarray(tensor.min(axes)), np.asarray(tensor.max(axes))
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            wrong = tensor[~np.isfinite(tensor)].flat[0]
            raise InputError(f"input `{name}` of `{self.component}` has the value {wrong}")
        old_low, old_high = self.seen.get(name, (low, high))
        self.seen[name] = np.minimum(low, old_low), np.maximum(high, old_high)

    def constant(self) -> Iterator[tuple[str, float]]:
        """Inputs and channels with a single value, and the value."""
        for name, (low, high) in self.seen.items():
            for channel in np.flatnonzero(low == high):
                what = f"channel {channel} of `{name}`" if low.ndim else f"`{name}`"
                yield what, float(low.flat[channel])


class Recorder:
    """A session that keeps a copy of what it is fed in the existing ``folder``.

    A graph with a cache is recorded as one run an answer, over all its tokens and with an empty cache: the same numbers
    as those of its many runs. ``sample`` is what errors call the request being answered.
    """

    def __init__(self, session: Session, graph: Graph, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self.session = session
        self.graph = graph
        self.folder = folder
        self.most_bytes = most_bytes
        self.sample = ""
        self._spans = Spans(graph.component)
        self._held: Tensors = {}
        self._steps: list[Tensors] = []
        self._files: list[Path] = []
        self._bytes = 0
        self._left_out = 0

    def run(self, feeds: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        """What the session answers.

        Raises:
            InputError: naming the sample and the input whose dtype or shape is wrong, or that is not finite.
        """
        self._check(feeds)
        if self.graph.cache:
            self._steps.append({name: tensor.copy() for name, tensor in feeds.items()})
        else:
            self._keep({**self._held, **feeds})
        return self.session.run(feeds, outputs)

    def reset(self, held: Tensors | None = None) -> None:
        """Begin an answer."""
        self._end_answer()
        self._held = held or {}
        self.session.reset(held)

    def close(self) -> None:
        self.session.close()

    def recording(self) -> Recording:
        """All that was recorded."""
        self._end_answer()
        return Recording(self._files, self.graph.cache)

    def doubts(self) -> tuple[str, ...]:
        """Inputs that never vary, and what was not recorded."""
        name = self.graph.component
        doubts = [
            f"{what} of `{name}` is {value:g} in every calibration sample: how far it reaches on the device is a guess"
            for what, value in self._spans.constant()
        ]
        if self._left_out:
            kept, limit = len(self._files), self.most_bytes >> 20
            doubts.append(
                f"`{name}` is calibrated on {kept} of {kept + self._left_out} answers, the limit is {limit} MiB"
            )
        return tuple(doubts)

    def _check(self, feeds: Tensors) -> None:
        try:
            check_feeds(
                (port for port in self.graph.inputs if port.name not in self._held), feeds, self.graph.component
            )
            for name, tensor in {**self._held, **feeds}.items():
                self._spans.add(name, tensor)
        except InputError as error:
            raise InputError(f"calibration sample `{self.sample}`: {error.message}", hint=error.hint) from error

    def _end_answer(self) -> None:
        if self._steps and self.graph.cache:
            self._keep({**self._held, **_joined(self._steps, self.graph.inputs)})
        self._steps = []

    def _keep(self, feeds: Tensors) -> None:
        size = sum(tensor.nbytes for tensor in feeds.values())
        if self._bytes + size > self.most_bytes and self._files:
            self._left_out += 1
            return
        path = self.folder / f"{self.graph.component}.{len(self._files)}.npz"
        np.savez(path, **feeds)  # type: ignore[arg-type]
        self._files.append(path)
        self._bytes += size


def _joined(steps: Sequence[Tensors], ports: Sequence[Port]) -> Tensors:
    """Steps one after the other, along the axis whose size varies."""
    joined = {port.name: _join([step[port.name] for step in steps], port) for port in ports if port.name in steps[0]}
    if PLACES in joined:  # in all that was read, not in their own steps
        lengths = [step["position_ids"].shape[-1] for step in steps]
        begins = np.cumsum([0, *lengths[:-1]])
        joined[PLACES] = np.concatenate([step[PLACES] + begin for step, begin in zip(steps, begins, strict=True)])
    return joined


def _join(tensors: Sequence[np.ndarray], port: Port) -> np.ndarray:
    varying = [axis for axis, size in enumerate(port.shape) if isinstance(size, str)]
    return np.concatenate(tensors, axis=varying[0]) if varying else tensors[-1]


def _empty(ports: Sequence[Port]) -> Tensors:
    return {
        port.name: np.zeros([0 if isinstance(size, str) else size for size in port.shape], port.dtype) for port in ports
    }


def record(
    samples: Sequence[Sample],
    recorders: Mapping[str, Recorder],
    read: Callable[[Sample], Request],
    answer: Callable[[Request], None],
    *,
    skip_bad: float = 0.0,
) -> tuple[dict[str, Recording], tuple[str, ...]]:
    """Read and answer each sample; returns what each component was fed, and reasons to doubt it.

    ``skip_bad`` is the share of samples that may be unreadable.

    Raises:
        InputError: there are no samples, more are unreadable than may be, or one makes inputs that cannot be used.
    """
    if not samples:
        raise InputError("calibration has no samples", hint="give at least 8 that look like what the device sees")
    bad: list[InputError] = []
    for sample in samples:
        for recorder in recorders.values():
            recorder.sample = sample.id
        try:
            request = read(sample)
        except InputError as error:
            bad.append(error)
            if len(bad) > skip_bad * len(samples):
                what = f"calibration sample `{sample.id}`: {error.message}"
                raise InputError(what, hint=error.hint or SKIP) from error
        else:
            answer(request)
    doubts = list(doubt_samples(samples))
    if bad:
        doubts.append(f"{len(bad)} of {len(samples)} calibration samples were skipped: {bad[0].message}")
    doubts += [doubt for recorder in recorders.values() for doubt in recorder.doubts()]
    return {name: recorder.recording() for name, recorder in recorders.items()}, tuple(doubts)
