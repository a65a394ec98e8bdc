"""Whether mid-size models of every vision-language family answer as `generate` of `transformers` does.

    python benchmarks/mid_size.py [FAMILY...]

Makes a checkpoint and a bundle of each (``models/mid_size.py``) under ``benchmarks/.work/mid_size`` unless they are
there, and compares greedy tokens on both engines. Weights are random, so that two tokens may be all but equally likely:
where an answer differs, ``margin`` is by how much torch's logit of its own token is above that of ours. Adds to
``results/mid_size.json`` by family.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from models.mid_size import MODELS, make
from msgspec.structs import replace
from PIL import Image

import mmedge
from mmedge.core.family import Prompt, Request, Turn
from mmedge.export.build import export
from mmedge.export.load import Checkpoint, load_model, read_checkpoint
from mmedge.families import _decoder_only

ROOT = Path(__file__).resolve().parent
WORK, RESULT = ROOT / ".work" / "mid_size", ROOT / "results" / "mid_size.json"
ENGINES = ("onnxruntime", "openvino")
LIMIT = 24


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """Soft blots of colour."""
    generator = np.random.default_rng(seed)
    blots = generator.integers(0, 256, (max(2, height // 48), max(2, width // 48), 3), np.uint8)
    return np.asarray(Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC))


PORTRAIT, LANDSCAPE, SQUARE = picture(320, 480, 1), picture(640, 360, 2), picture(336, 336, 5)
TINY, HUGE = picture(5, 3, 3), picture(1600, 1200, 4)
TYPED = "typed special tokens"
REQUESTS = {
    "no picture": Request(text="What is the sum of 2 and 3?"),
    "portrait": Request((PORTRAIT,), "What is in the picture?"),
    "landscape": Request((LANDSCAPE,), "What is it?"),
    "tiny": Request((TINY,), "What is it?"),
    "huge": Request((HUGE,), "the"),
    "square": Request((SQUARE,), "Why?"),
    "three pictures": Request((PORTRAIT, LANDSCAPE, SQUARE), "Which is the largest?"),
    "pictures of equal size": Request((SQUARE, picture(336, 336, 6)), "What differs?"),
    "unicode": Request((SQUARE,), "Wo ist das? 北京 — 🙂 naïve\nnew line"),
    "two turns": Request((), "And the other?", (Turn((LANDSCAPE,), "What is it?", "a thing"),)),
    "pictures in two turns": Request((TINY,), "And now?", (Turn((SQUARE,), "What is it?", "it is a star"),)),
    "words before pictures": Request((PORTRAIT,), "this", (Turn((), "Look at the next.", "Yes"),)),
    "nothing but a picture": Request((LANDSCAPE,)),
    "many words": Request((TINY,), "What is the name of this thing, and who made it? " * 8),
    "a task": Request((PORTRAIT,), "detect thing"),
    TYPED: Request((LANDSCAPE,), "What is {} and {}?"),
}


class Answer(NamedTuple):
    """What torch says: tokens, and logits ``[steps, vocabulary]``; one step more where it ends by itself."""

    tokens: list[int]
    logits: np.ndarray


def requests(checkpoint: Checkpoint) -> dict[str, Request]:
    """Those that the family can answer, some not being made for conversations."""
    chats = "chat" in checkpoint.family.tasks(checkpoint.config)
    typed = (checkpoint.config["text"]["image_token"], checkpoint.processor.tokenizer.eos_token)
    asked = REQUESTS | {TYPED: replace(REQUESTS[TYPED], text=REQUESTS[TYPED].text.format(*typed))}
    return {name: request for name, request in asked.items() if chats or (request.images and not request.earlier)}


def inputs(checkpoint: Checkpoint, name: str, request: Request, prompt: Prompt) -> dict[str, Any]:
    """Of `generate`: by the checkpoint's processor, whose tokens must be ours.

    It would take special tokens that are typed for what they look like, and is given other words there.
    """
    family = import_module(f"mmedge.families.{checkpoint.family.name}")
    reads = getattr(family, "inputs_of", _decoder_only.inputs_of)
    plain = request if name != TYPED else replace(request, text="What is it?")
    made = dict(reads(checkpoint.processor, plain))
    if name == TYPED:
        image, old = _decoder_only.image_token_id(checkpoint.config), made["input_ids"][0]
        tokens = torch.from_numpy(prompt.tokens)
        assert (tokens == image).sum() == (old == image).sum(), name
        for mask in {"attention_mask", "token_type_ids", "mm_token_type_ids"} & made.keys():
            kinds = (made[mask][0, old == image][0], made[mask][0, old != image][0])
            made[mask] = torch.where(tokens == image, *kinds)[None]
        made["input_ids"] = tokens[None]
    assert made["input_ids"][0].tolist() == prompt.tokens.tolist(), name
    return made


def answer(model: Any, inputs: dict[str, Any]) -> Answer:
    told = {"return_dict_in_generate": True, "output_logits": True, "do_sample": False, "num_beams": 1}
    made = model.generate(**inputs, max_new_tokens=LIMIT, **told)
    written = made.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    return Answer(_decoder_only.until_stop(model, written), torch.cat(made.logits).numpy())


def smallest_margin(answers: dict[str, Answer]) -> float:
    """Between the two largest logits of a step."""
    pairs = [np.sort(each.logits, axis=-1)[:, -2:] for each in answers.values()]
    return float(min((pair[:, 1] - pair[:, 0]).min() for pair in pairs))


def difference(want: Answer, got: list[int], stops: tuple[int, ...]) -> dict[str, Any]:
    """Where an answer of ours leaves that of torch."""
    at = next((step for step, pair in enumerate(zip(want.tokens, got, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(want.tokens), len(got)) if at is None else at
    logits = want.logits[at]
    ours = logits[got[at]] if at < len(got) else logits[list(stops)].max()
    return {"step": at, "margin": float(logits.max() - ours), "spread": float(logits.std())}


def made(name: str) -> tuple[Path, Path]:
    """The checkpoint and the bundle of a family."""
    folder, bundle = WORK / name / "checkpoint", WORK / name / "bundle"
    if not (folder / "processor_config.json").exists():
        make(name, folder)
    if not bundle.exists():
        export(str(folder), output=bundle, target="cpu", precision="float32")
    return folder, bundle


def compare(name: str) -> dict[str, Any]:
    """All conversations on all engines."""
    folder, bundle = made(name)
    checkpoint = read_checkpoint(folder)
    model, asked = load_model(checkpoint), requests(checkpoint)
    answers: dict[str, Answer] = {}
    equal, differences = dict.fromkeys(ENGINES, 0), []
    for engine in ENGINES:
        with mmedge.load(bundle, backend=engine) as pipeline:
            for each, request in asked.items():
                prompt = pipeline.prepare(request)
                if each not in answers:
                    answers[each] = answer(model, inputs(checkpoint, each, request, prompt))
                got = [piece.token for piece in pipeline.stream(prompt, limit=LIMIT) if piece.token is not None]
                equal[engine] += got == answers[each].tokens
                if got != answers[each].tokens:
                    found = difference(answers[each], got, prompt.stop)
                    differences.append({"engine": engine, "conversation": each, **found})
    return {
        "parameters_millions": round(sum(weight.numel() for weight in model.parameters()) / 1e6, 1),
        "conversations": len(asked),
        "tokens": sum(len(each.tokens) for each in answers.values()),
        "different_answers": len({tuple(each.tokens) for each in answers.values()}),
        "equal": equal,
        "differences": differences,
        "smallest_margin": smallest_margin(answers),
        "versions": {each: version(each) for each in ("mmedge", "torch", "transformers", *ENGINES)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(MODELS))
    for name in parser.parse_args().families or MODELS:
        started = time.perf_counter()
        found = compare(name)
        result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        result[name] = found
        RESULT.write_text(json.dumps(dict(sorted(result.items())), indent=1) + "\n")
        print(f"{name}, {time.perf_counter() - started:.0f} s: {json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
