"""Train the built-in captioner `builtin:scenes` from scratch on two CPU cores and write its checkpoint.

    python benchmarks/models/train_scenes.py

Killed and started again, it goes on from the last saved step. Stage one teaches the vision tower to name what every
patch of a crowded picture shows, with a head that is thrown away. Stage two teaches captions and questions: a caption
and two or three questions about a picture are one sequence, so that the vision tower runs once for all of them.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from transformers import BlipConfig, BlipForConditionalGeneration, GenerationConfig

from mmedge.builtin.scenes import draw
from mmedge.builtin.scenes.draw import Scene

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "mmedge" / "builtin" / "scenes" / "checkpoint"
PICTURES = ROOT / "mmedge" / "builtin" / "scenes" / "pictures"
WORK = ROOT / "benchmarks" / ".work" / "train_scenes"

STEPS, SAVE_EVERY = 6500, 250
CROWD_STEPS, CROWD_BATCH, SCENE_BATCH = 1500, 64, 32
RATES = {0: 0.0, 300: 1e-3, 1500: 1e-3, 1501: 0.0, 1800: 8e-4, 4250: 5e-4, STEPS: 0.0}  # straight lines between these
HARD_STEP = 3500  # from here on, more of what is learned last: digits, and "is there ...?" asked of every scene
HARD_KINDS = {"digit": 34, "one": 14, "two": 26, "three": 26}
PATCH_LOSS = 0.3  # weight of the patch labels beside the text in stage two
EXAMPLES = (12_999_922, 12_999_945, 12_999_914, 12_999_934)  # held-out seeds: one, two, three shapes, a digit
FIRST_CROWD = draw.SPLITS["training"].start
FIRST_SCENE = draw.SPLITS["training"].start + 5_000_000

WIDTH, PATCH, TEXT_LENGTH = 192, 12, 48
GRID = draw.PICTURE // PATCH
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]")
PAD, SEPARATOR, START = 0, 3, 4
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)

IGNORED = -100  # the label that torch's cross entropy skips
SHAPE_NAMES = (*draw.SHAPES, *draw.NUMBERS, "nothing")
LABELS = {"shape": len(SHAPE_NAMES), "colour": len(draw.COLOURS), "size": len(draw.RADII), "place": 3}


# Files of the checkpoint besides the weights


def make_tokenizer() -> Tokenizer:
    """All words of captions and questions, and letters, so that any other word can be spelled."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    pieces += [word for word in known_words() if word not in pieces]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, pieces.index(token)) for token in ("[CLS]", "[SEP]")]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def known_words() -> list[str]:
    """Every word and mark that a thousand scenes use, which is all of them."""
    drawn = (draw.imagine(seed) for seed in range(FIRST_SCENE, FIRST_SCENE + 1000))
    texts = (text for scene in drawn for text in (draw.caption(scene), *sum(draw.questions(scene), ())))
    return sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text)})


def make_config(words: int) -> BlipConfig:
    common = {"hidden_size": WIDTH, "intermediate_size": 512, "num_attention_heads": 6, "layer_norm_eps": 1e-5}
    ids = {"bos_token_id": START, "eos_token_id": SEPARATOR, "sep_token_id": SEPARATOR, "pad_token_id": PAD}
    text = common | ids | {"vocab_size": words, "num_hidden_layers": 2, "max_position_embeddings": TEXT_LENGTH}
    vision = common | {"num_hidden_layers": 4, "image_size": draw.PICTURE, "patch_size": PATCH}
    # The default range of the vision tower is 1e-10, from which it never learns.
    return BlipConfig(text_config=text, vision_config=vision | {"initializer_range": 0.02})


def save_checkpoint(model: BlipForConditionalGeneration, tokenizer: Tokenizer, folder: Path) -> None:
    """The ordinary Hugging Face layout; weights stored in float16, to be loaded in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).half()
    half.generation_config = GenerationConfig(
        max_new_tokens=24, bos_token_id=START, eos_token_id=SEPARATOR, pad_token_id=PAD
    )
    half.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text().replace('"float16"', '"float32"'))
    write_json(folder / "config.json", config)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", tokenizer_config())
    write_json(folder / "preprocessor_config.json", preprocessor_config())


def save_pictures(folder: Path) -> None:
    """Example pictures with their captions and questions, to try the checkpoint on."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for seed in EXAMPLES:
        picture, caption, questions = draw.draw(seed)
        name = f"{draw.imagine(seed).kind}.png"
        picture.save(folder / name, optimize=True)
        lines.append(json.dumps({"image": name, "caption": caption, "questions": questions}))
    (folder / "pictures.jsonl").write_text("\n".join(lines) + "\n")


def tokenizer_config() -> dict[str, object]:
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return {
        "tokenizer_class": "BertTokenizer",
        "processor_class": "BlipProcessor",
        "do_lower_case": True,
        "model_max_length": TEXT_LENGTH,
        **names,
        "bos_token": "[DEC]",
    }


def preprocessor_config() -> dict[str, object]:
    return {
        "image_processor_type": "BlipImageProcessor",
        "processor_class": "BlipProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": draw.PICTURE, "width": draw.PICTURE},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(DEVIATION),
    }


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


# Batches: drawn by a worker process while the model trains


class Batch(NamedTuple):
    """Pictures, what their patches show, and their texts packed one after another.

    ``pixels`` [batch, height, width, 3] of 0..255, ``patches`` [batch, grid * grid, 4] in the order of LABELS, and
    ``ids``, ``targets``, ``positions`` and ``segments`` [batch, length]; segment 1 is the caption, 0 is padding.
    """

    pixels: Tensor
    patches: Tensor
    ids: Tensor
    targets: Tensor
    positions: Tensor
    segments: Tensor


class Batches(Dataset[Batch]):
    """The batch of every training step, by its number: nothing to remember between runs."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __getitem__(self, step: int) -> Batch:
        if step < CROWD_STEPS:
            first = FIRST_CROWD + step * CROWD_BATCH
            return make_batch([draw.crowd(first + offset) for offset in range(CROWD_BATCH)], None)
        first = FIRST_SCENE + (step - CROWD_STEPS) * SCENE_BATCH
        hard = step >= HARD_STEP
        seeds = range(first, first + SCENE_BATCH)
        scenes = [draw.imagine(seed, HARD_KINDS if hard else draw.KINDS) for seed in seeds]
        return make_batch(scenes, self.tokenizer, presence=hard)


def make_batch(scenes: list[Scene], tokenizer: Tokenizer | None, presence: bool = False) -> Batch:
    """Without a tokenizer, pictures and patches only."""
    masks = [[draw.mask(thing) for thing in scene.things] for scene in scenes]
    pixels = np.stack([draw.pixels(scene, covers) for scene, covers in zip(scenes, masks, strict=True)])
    patches = np.stack(
        [patch_labels(scene, covers, tokenizer is None) for scene, covers in zip(scenes, masks, strict=True)]
    )
    texts = [pack(scene, tokenizer, presence) if tokenizer else np.zeros((4, 0), np.int64) for scene in scenes]
    columns = np.zeros((len(scenes), 4, max(text.shape[1] for text in texts)), np.int64)
    columns[:, 1] = IGNORED
    for row, text in zip(columns, texts, strict=True):
        row[:, : text.shape[1]] = text
    return Batch(torch.from_numpy(pixels), torch.from_numpy(patches), *torch.from_numpy(columns).unbind(1))


def patch_labels(scene: Scene, masks: list[np.ndarray], crowded: bool) -> np.ndarray:
    """Shape, colour, size and place in the caption of what fills each patch, [grid * grid, 4]."""
    cover = np.stack(masks).reshape(len(masks), GRID, PATCH, GRID, PATCH).mean((2, 4)).reshape(len(masks), -1)
    labels = np.array([thing_labels(thing, IGNORED if crowded else place) for place, thing in enumerate(scene.things)])
    found = labels[cover.argmax(0)]
    found[cover.max(0) < 0.2] = IGNORED  # too little of it to be sure
    found[cover.max(0) < 0.02] = (SHAPE_NAMES.index("nothing"), IGNORED, IGNORED, IGNORED)
    return found


def thing_labels(thing: draw.Thing, place: int) -> tuple[int, int, int, int]:
    colour, size = list(draw.COLOURS).index(thing.colour), list(draw.RADII).index(thing.size)
    return SHAPE_NAMES.index(thing.shape), colour, IGNORED if thing.sample >= 0 else size, place


def pack(scene: Scene, tokenizer: Tokenizer, presence: bool) -> np.ndarray:
    """The caption and some questions as ids, targets, positions and segments, [4, length]."""
    texts = [("", draw.caption(scene)), *some_questions(scene, presence)]
    return np.concatenate([segment(tokenizer, *text, number) for number, text in enumerate(texts, start=1)], axis=1)


def some_questions(scene: Scene, presence: bool) -> list[tuple[str, str]]:
    """Two of different kinds, so that no kind is rare, and one more for ``presence`` where the scene has it."""
    chance = random.Random(f"training questions of {scene.seed}")
    shuffled = draw.questions(scene)
    chance.shuffle(shuffled)
    one_of_each = {draw.question_kind(question): (question, answer) for question, answer in shuffled}
    chosen = chance.sample(list(one_of_each.values()), 2)
    extra = [asked for asked in shuffled if presence and draw.question_kind(asked[0]) == "presence"]
    return chosen + extra[:1]


def segment(tokenizer: Tokenizer, prompt: str, answer: str, number: int) -> np.ndarray:
    """What `generate` sees: the start token, the prompt, then the answer, of which only the latter is learned."""
    asked = tokenizer.encode(prompt, add_special_tokens=False).ids
    told = tokenizer.encode(answer, add_special_tokens=False).ids
    ids = [START, *asked, *told]
    targets = [IGNORED] * len(asked) + [*told, SEPARATOR]
    return np.array([ids, targets, range(len(ids)), [number] * len(ids)])


# Training


def train() -> None:
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = BlipForConditionalGeneration(make_config(tokenizer.get_vocab_size()))
    head = nn.Linear(WIDTH, sum(LABELS.values()))
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], weight_decay=0.01, fused=True)
    done, spent = resume(model, head, optimizer)
    began = time.monotonic() - spent
    loader = DataLoader(Batches(tokenizer), batch_size=None, sampler=range(done, STEPS), num_workers=1)
    model.train()
    for step, batch in enumerate(loader, start=done + 1):
        loss = learn(model, head, optimizer, batch, rate=learning_rate(step))
        if step % 50 == 0:
            print(f"step {step} of {STEPS}, loss {loss:.4f}, {time.monotonic() - began:.0f} s", flush=True)
        if step % SAVE_EVERY == 0 or step == STEPS:
            print(f"  validation: {validate(model, head, tokenizer, step)}", flush=True)
            keep(model, head, optimizer, step, time.monotonic() - began)
    save_checkpoint(model, tokenizer, CHECKPOINT)
    save_pictures(PICTURES)


def learning_rate(step: int) -> float:
    """Warm-up in both stages; then flat in the first, and falling to nothing in the second."""
    return float(np.interp(step, list(RATES), list(RATES.values())))


def learn(
    model: BlipForConditionalGeneration, head: nn.Linear, optimizer: torch.optim.Optimizer, batch: Batch, rate: float
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    seen, logits = run(model, batch)
    loss = patch_loss(head(seen[:, 1:].float()), batch.patches)
    if logits is not None:
        loss = PATCH_LOSS * loss + cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], 1.0)
    optimizer.step()
    return loss.item()


def run(model: BlipForConditionalGeneration, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """What the vision tower sees [batch, patches + 1, width] and the logits of the packed texts, if any."""
    with torch.autocast("cpu", torch.bfloat16):
        seen = model.vision_model(normalized(batch.pixels)).last_hidden_state
        if not batch.ids.shape[1]:
            return seen, None
        told = model.text_decoder(
            batch.ids,
            attention_mask=packed_mask(batch.segments),
            position_ids=batch.positions,
            encoder_hidden_states=seen,
            use_cache=False,
        )
    return seen, told.logits


def normalized(pixels: Tensor) -> Tensor:
    """Exactly what the image processor makes of a picture of this size, [batch, 3, height, width]."""
    return ((pixels / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)).permute(0, 3, 1, 2)


def packed_mask(segments: Tensor) -> Tensor:
    """Added to attention scores [batch, 1, length, length]: a text sees its own past and no other text."""
    same = segments[:, :, None] == segments[:, None, :]
    return torch.where(same.tril(), 0.0, -1e4)[:, None]


def patch_loss(logits: Tensor, patches: Tensor) -> Tensor:
    """Summed over LABELS, leaving out what is not labelled at all, as places are not in a crowd."""
    losses = []
    for name, scores, labels in zip(LABELS, logits.split(tuple(LABELS.values()), -1), patches.unbind(-1), strict=True):
        if (labels != IGNORED).any():
            weights = torch.ones(LABELS[name])
            if name == "shape":
                weights[SHAPE_NAMES.index("nothing")] = 0.1  # most of a picture is background
            losses.append(cross_entropy(scores.flatten(0, 1), labels.flatten(), weights))
    return torch.stack(losses).sum()


# Validation, and state between runs


@torch.no_grad()
def validate(model: BlipForConditionalGeneration, head: nn.Linear, tokenizer: Tokenizer, step: int) -> str:
    """Shares of patches, whole captions and whole answers that are right on 256 pictures."""
    seeds = draw.SPLITS["validation"][:256]
    crowded = step <= CROWD_STEPS
    scenes = [draw.crowd(seed) if crowded else draw.imagine(seed) for seed in seeds]
    batch = make_batch(scenes, None if crowded else tokenizer, presence=True)
    seen, logits = run(model, batch)
    shares = dict(right_patches(head(seen[:, 1:].float()), batch.patches))
    if logits is not None:
        # Greedy decoding writes a text exactly when every token is right given the ones before it.
        wrong = (logits.argmax(-1) != batch.targets) & (batch.targets != IGNORED)
        caption, *answers, presence = (~(wrong & (batch.segments == number)).any(1) for number in (1, 2, 3, 4))
        shares |= {f"captions of {kind}": share for kind, share in by_kind(scenes, caption.float())}
        shares |= {"captions": caption.float().mean().item(), "answers": torch.stack(answers).float().mean().item()}
        shares["presence"] = presence[(batch.segments == 4).any(1)].float().mean().item()
    return ", ".join(f"{name} {share:.3f}" for name, share in shares.items())


def right_patches(logits: Tensor, patches: Tensor) -> Iterator[tuple[str, float]]:
    """Of the patches that show something."""
    parts = logits.split(tuple(LABELS.values()), -1)
    for name, scores, labels in zip(LABELS, parts, patches.unbind(-1), strict=True):
        counted = (labels != IGNORED) & (patches[..., 0] != SHAPE_NAMES.index("nothing"))
        if counted.any():
            yield name, (scores.argmax(-1) == labels)[counted].float().mean().item()


def by_kind(scenes: list[Scene], right: Tensor) -> Iterator[tuple[str, float]]:
    for kind in ("one", "two", "three", "digit"):
        yield kind, right[[scene.kind == kind for scene in scenes]].mean().item()


def keep(model: nn.Module, head: nn.Module, optimizer: torch.optim.Optimizer, step: int, seconds: float) -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    parts = {"model": model.state_dict(), "head": head.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(parts | {"step": step, "seconds": seconds}, WORK / "state.new")
    (WORK / "state.new").replace(WORK / "state.pt")


def resume(model: nn.Module, head: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """The step to go on from and the seconds already spent."""
    if not (WORK / "state.pt").exists():
        return 0, 0.0
    state = torch.load(WORK / "state.pt", weights_only=True)
    model.load_state_dict(state["model"])
    head.load_state_dict(state["head"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    torch.set_num_threads(parser.parse_args().threads)
    train()


if __name__ == "__main__":
    main()
