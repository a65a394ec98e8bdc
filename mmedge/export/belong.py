"""Do the files of a checkpoint belong together? Asked before a weight is read, with a small picture or sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from mmedge.core.family import Insertion, Prompt, Request, Sound
from mmedge.core.plan import Plan
from mmedge.core.ports import Tensors, check_feeds
from mmedge.errors import InputError, ModelError
from mmedge.export.complete import ask_for_missing
from mmedge.export.examples import text_of
from mmedge.export.load import Checkpoint
from mmedge.export.weights import first_line
from mmedge.runtime.engine import arranging

PICTURE = np.zeros((24, 40, 3), np.uint8)
TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Any of these files may hold a chat template; new checkpoints have the first."""


def check_belonging(checkpoint: Checkpoint, plan: Plan) -> None:
    """Refuse a checkpoint whose processor makes something else than its model reads.

    Raises:
        ModelError: naming both.
    """
    prompts = [_prompt(checkpoint, plan, task) for task in plan.family.tasks(plan.config)]
    for prompt in prompts:
        _check_feeds(checkpoint, plan, prompt)
    if prompts[0].insertions:
        _check_rows(checkpoint, plan, prompts[0])


def _prompt(checkpoint: Checkpoint, plan: Plan, task: str) -> Prompt:
    if "chat" in plan.family.tasks(plan.config) and not checkpoint.config["text"].get("chat"):
        raise ModelError(
            f"`{checkpoint.folder}` has no chat template: it is in none of {', '.join(TEMPLATES)}",
            hint=f"put the model's {TEMPLATES[0]} beside its config.json",
        )
    request = _request(plan, text_of(task, None, 0) and "a")
    try:
        return plan.family.prepare(plan.config, checkpoint.tokenizer, request)
    except InputError as error:
        what = "a picture of 40x24 pixels" if request.images else "a second of silence"
        raise _of_another(checkpoint, f"{what} cannot be read: {error.message}") from error


def _request(plan: Plan, text: str | None) -> Request:
    if plan.modality == "image":
        return Request((PICTURE,), text)
    rate = int(plan.config["audio"]["sampling_rate"])
    return Request(text=text, sounds=(Sound(np.zeros(rate, np.float32), rate),))


def _check_feeds(checkpoint: Checkpoint, plan: Plan, prompt: Prompt) -> None:
    feeds = {**prompt.feeds, **(prompt.looks[0] if prompt.looks else {})}
    for component in plan.components:
        ports = [port for port in component.inputs if port.name in feeds]
        try:
            check_feeds(ports, {port.name: feeds[port.name] for port in ports}, component.name)
        except InputError as error:
            raise _of_another(checkpoint, error.message) from error


def _check_rows(checkpoint: Checkpoint, plan: Plan, prompt: Prompt) -> None:
    made = _outputs(checkpoint, plan, prompt)
    for insertion in prompt.insertions:
        rows = made[insertion.value].size // _width(plan, insertion)
        for written in _written(checkpoint, prompt, insertion):
            if written != rows:
                reason = _compared(written, rows, len(prompt.looks))
                raise _of_another(checkpoint, reason)


def _compared(written: int, rows: int, tiles: int) -> str:
    """Of one tile where a picture is cut into several that are alike."""
    alike = tiles > 1 and not written % tiles and not rows % tiles
    share, what = (tiles, f"each of {tiles} tiles of a picture") if alike else (1, "a picture")
    return f"it writes {written // share} image tokens for {what}, the model makes {rows // share} rows"


def _width(plan: Plan, insertion: Insertion) -> int:
    ports = (port for component in plan.components for port in component.inputs if port.name == insertion.into)
    return int(next(ports).shape[-1])


def _outputs(checkpoint: Checkpoint, plan: Plan, prompt: Prompt) -> Tensors:
    """Zeros in the shapes of all that is made of the prompt before its first step."""
    arrange = arranging(plan.family, plan.config)
    try:
        return arrange(prompt, [_seen(checkpoint.outline, plan, {**prompt.feeds, **look}) for look in prompt.looks])
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"`{checkpoint.folder / 'config.json'}` describes no model: {first_line(error)}",
            hint="do the sizes in it fit together?",
        ) from error


def _seen(model: Any, plan: Plan, feeds: Tensors) -> Tensors:
    values = {name: torch.from_numpy(array).to("meta") for name, array in feeds.items()}
    with torch.device("meta"), torch.no_grad():
        for component in plan.components:
            if component.role == "tower":
                made = component.forward(model, *(values[port.name] for port in component.inputs))
                values |= {port.name: value for port, value in zip(component.outputs, made, strict=True)}
    return {
        name: feeds[name] if name in feeds else np.zeros(tuple(value.shape), np.float32)
        for name, value in values.items()
    }


def _written(checkpoint: Checkpoint, prompt: Prompt, insertion: Insertion) -> Iterator[int]:
    """How many tokens stand for the picture as we write them, and as the checkpoint's own processor does."""
    from PIL import Image

    yield len(insertion.places)
    text = checkpoint.config["text"]
    said = (text.get("chat") or {}).get("picture") or text["image_token"]
    try:
        ids = checkpoint.processor(text=[said], images=[Image.fromarray(PICTURE)])["input_ids"]
    except Exception as error:  # processors raise whatever their many parts raise
        raise _of_another(checkpoint, f"it cannot read a picture: {first_line(error)}") from error
    yield int((np.asarray(ids) == prompt.tokens[insertion.places[0]]).sum())


def _of_another(checkpoint: Checkpoint, reason: str) -> ModelError:
    return ModelError(
        f"the processor of `{checkpoint.folder}` is of another model: {reason}", hint=ask_for_missing(checkpoint.folder)
    )
