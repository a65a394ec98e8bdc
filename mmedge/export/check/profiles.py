"""Whether every size that varies has the range that an engine is built for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from mmedge.core.ports import Port, Span
from mmedge.core.target import Target
from mmedge.export.check.findings import Finding
from mmedge.export.check.opened import Opened

LENGTH = "length"
"""Of a decoder: tokens read in one run."""

ONE_TOKEN = Span(1, 1, 1)


def check_profiles(opened: Opened, target: Target) -> Iterator[Finding]:
    """The ranges of a graph that an engine is built of."""
    yield from _check_batch(opened)
    words = {size: port for port in opened.ports for size in port.shape if isinstance(size, str)}
    for number, profile in enumerate(opened.graph.profiles, 1):
        yield from _check_profile(opened, number, profile, words)
    if words and not opened.graph.profiles:
        named = ", ".join(f"`{word}`" for word in words)
        hint = f"give the component `sizes` and export for `{target.name}`"
        yield opened.finding("profiles/missing", "error", f"no ranges for the sizes {named}", hint)
    if opened.graph.cache:
        yield from _check_decoder(opened, target)
    yield from _check_shapes(opened)


def _check_batch(opened: Opened) -> Iterator[Finding]:
    """A cache has room for one answer."""
    for port in opened.ports:
        if opened.graph.cache and any("batch" in str(size).lower() for size in port.shape):
            message = f"the input `{port.name}` {list(port.shape)} has a batch that varies"
            yield opened.finding("profiles/batch", "error", message, "export with a batch of 1")


def _check_profile(
    opened: Opened, number: int, profile: Mapping[str, Span], words: Mapping[str, Port]
) -> Iterator[Finding]:
    for word in words.keys() - profile.keys():
        message = f"profile {number} has no range for `{word}` of the input `{words[word].name}`"
        yield opened.finding("profiles/missing", "error", message, f"add `{word}` to the component's `sizes`")
    for word in profile.keys() - words.keys():
        message = f"profile {number} has a range for `{word}`, which is no size of an input"
        yield opened.finding("profiles/unused", "warning", message, "remove it from the component's `sizes`")
    for word, span in profile.items():
        if not 0 < span.smallest <= span.usual <= span.largest:
            message = f"the range of `{word}` in profile {number} is {span.smallest}, {span.usual}, {span.largest}"
            hint = "order it as smallest, usual, largest, all above 0"
            yield opened.finding("profiles/order", "error", message, hint)


def _check_shapes(opened: Opened) -> Iterator[Finding]:
    """The graph at both ends of each profile."""
    if opened.problem:  # reported already
        return
    for profile in opened.graph.profiles:
        for end in ("smallest", "largest"):
            sizes = {word: getattr(span, end) for word, span in profile.items()}
            try:
                opened.sized(sizes, strict=True)
            except onnx.shape_inference.InferenceError as error:
                where = ", ".join(f"{word} {size}" for word, size in sizes.items())
                message = f"its shapes do not fit at {where}: {' '.join(str(error).split())[:300]}"
                yield opened.finding("profiles/shapes", "error", message, "narrow the range, or trace it otherwise")
                return


def _check_decoder(opened: Opened, target: Target) -> Iterator[Finding]:
    cache = opened.graph.cache
    if cache is None or target.cache != "fixed":
        return
    if not cache.capacity:
        message = "its cache grows with every token, an engine needs one of a fixed length"
        hint = f"export the model again with --target {target.name}"
        yield opened.finding("profiles/cache", "error", message, hint)
        return
    spans = [profile[LENGTH] for profile in opened.graph.profiles if LENGTH in profile]
    if not spans:
        return  # reported as missing
    if ONE_TOKEN not in spans:
        hint = f"add one with `{LENGTH}` 1, 1, 1"
        yield opened.finding("profiles/decoder", "error", "no profile is for a single token", hint)
    if not any(span.largest > 1 for span in spans):
        yield opened.finding("profiles/decoder", "error", "no profile is for a prompt", "add one with longer lengths")
    if (longest := max(span.largest for span in spans)) > cache.capacity:
        message = f"prompts of up to {longest} tokens, the cache has {cache.capacity} slots"
        yield opened.finding("profiles/cache", "error", message, "make the cache larger or the prompts shorter")
