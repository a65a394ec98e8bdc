"""Train the built-in vision-language model `builtin:scenes-vlm` on two CPU cores and write its checkpoint.

    python benchmarks/models/train_scenes_vlm.py

A SmolVLM of 3.4 million parameters. Its vision tower is that of `builtin:scenes`, whose class token hardly matters and
is dropped, and the connector starts as the map that spells what a patch shows in the embeddings of its words; so the
text model starts with pictures that it can read, and learns to describe and to answer. The tower stays as it is.
Killed and started again, it goes on from the last saved step.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from train_scenes import CHECKPOINT as BLIP
from train_scenes import DEVIATION, IGNORED, MEAN, PATCH, SHAPE_NAMES, some_questions, write_json
from train_scenes import make_batch as make_patches
from transformers import BlipForConditionalGeneration, GenerationConfig, SmolVLMConfig, SmolVLMForConditionalGeneration

from mmedge.builtin.scenes import draw
from mmedge.builtin.scenes.draw import Scene

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "mmedge" / "builtin" / "scenes-vlm" / "checkpoint"
WORK = ROOT / "benchmarks" / ".work" / "train_scenes_vlm"

STEPS, SAVE_EVERY, BATCH = 1300, 100, 16
COMPARE_STEP = 400  # from here on, most questions are those that are answered by yes or no
RATES = {0: 0.0, 200: 1.2e-3, 400: 1.2e-3, 401: 1e-3, 1000: 1e-3, STEPS: 0.0}  # straight lines between these
LOOKING, CHANCE = 0.5, 0.02  # strength of the first queries and keys; share of chance in the connector
CONNECTOR_RATE = 0.15  # share of the rate: its weights are small
KINDS = {"digit": 12, "one": 18, "two": 35, "three": 35}  # what takes longest to learn is shown most
CHAINED = 0.3  # share of pictures whose questions are asked one after another in one conversation
CAPITALISED = 0.3  # share of questions that start with a capital letter, as people write
FIRST_CROWD = draw.SPLITS["training"].start + 6_900_000
FIRST_SCENE = draw.SPLITS["training"].start + 7_000_000  # the tower has seen earlier ones

TEXT = {
    "model_type": "llama",
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
}
SCALE = 2  # patches, across and down, that the connector makes one image token of
IMAGE_TOKENS = (draw.PICTURE // PATCH // SCALE) ** 2

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
)
UNKNOWN, START, PAD, END, AROUND, IMAGE, GLOBAL = SPECIAL
OPENING = f"{START}User:{AROUND}{GLOBAL}{IMAGE * IMAGE_TOKENS}{AROUND}"
CAPTION_PROMPT = "Describe the picture."
LIST_PROMPT = "List the shapes."
# A colon alone comes before a picture, a colon and a space before a text.
CHAT_TEMPLATE = (
    START
    + "{% for message in messages %}{{ message['role'] | capitalize }}"
    + "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    + "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    + f"{{% elif part['type'] == 'image' %}}{{{{ '{IMAGE}' }}}}{{% endif %}}{{% endfor %}}{END}\n"
    + "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


# Files of the checkpoint besides the weights


def make_tokenizer() -> Tokenizer:
    """Byte-level BPE that has every word of a thousand conversations whole, and spells any other."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=1,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(all_words(), trainer)
    return tokenizer


def all_words() -> Iterator[str]:
    """What a thousand pictures are asked, in any place of a conversation, with its answers."""
    for seed in range(FIRST_SCENE, FIRST_SCENE + 1000):
        scene = draw.imagine(seed)
        for question, answer in [(CAPTION_PROMPT, draw.caption(scene)), *draw.questions(scene)]:
            yield from (question, capitalised(question), f"\nUser: {question}", f" {capitalised(question)}")
            yield from ("\nAssistant:", f" {answer}")


def make_config(tokenizer: Tokenizer) -> SmolVLMConfig:
    start, end, pad, image = map(tokenizer.token_to_id, (START, END, PAD, IMAGE))
    words = -(-tokenizer.get_vocab_size() // 64) * 64  # whole blocks, for weights stored in four bits
    ids = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": pad}
    vision = {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "image_size": draw.PICTURE,
        "patch_size": PATCH,
        "layer_norm_eps": 1e-5,
    }
    return SmolVLMConfig(
        text_config=TEXT | ids | {"vocab_size": words},
        vision_config=vision,
        scale_factor=SCALE,
        image_token_id=image,
        **ids,
    )


def save_checkpoint(model: SmolVLMForConditionalGeneration, tokenizer: Tokenizer, folder: Path) -> None:
    """The ordinary Hugging Face layout; weights stored in float16, to be loaded in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).half()
    start, end, pad = map(tokenizer.token_to_id, (START, END, PAD))
    half.generation_config = GenerationConfig(max_new_tokens=32, bos_token_id=start, eos_token_id=end, pad_token_id=pad)
    half.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text().replace('"float16"', '"float32"'))
    write_json(folder / "config.json", config)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    write_json(folder / "tokenizer_config.json", tokenizer_config())
    write_json(folder / "preprocessor_config.json", preprocessor_config())
    write_json(folder / "processor_config.json", {"processor_class": "SmolVLMProcessor", "image_seq_len": IMAGE_TOKENS})


def tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "SmolVLMProcessor",
        "model_max_length": TEXT["max_position_embeddings"],
        "bos_token": START,
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "additional_special_tokens": [AROUND, IMAGE, GLOBAL],
        "clean_up_tokenization_spaces": False,
    }


def preprocessor_config() -> dict[str, object]:
    return {
        "image_processor_type": "SmolVLMImageProcessor",
        "processor_class": "SmolVLMProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": draw.PICTURE},
        "max_image_size": {"longest_edge": draw.PICTURE},
        "resample": 1,
        "do_image_splitting": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_pad": True,
    }


# The vision tower of `builtin:scenes`


def adopt_tower(model: SmolVLMForConditionalGeneration) -> None:
    """Copy the tower without its class token; each patch sees it, but changes by 1 % without."""
    old = BlipForConditionalGeneration.from_pretrained(BLIP, dtype=torch.float32).vision_model.state_dict()
    model.model.vision_model.load_state_dict(dict(renamed(old)))


def renamed(old: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    weight, bias = rescaled(old["embeddings.patch_embedding.weight"], old["embeddings.patch_embedding.bias"])
    yield "embeddings.patch_embedding.weight", weight
    yield "embeddings.patch_embedding.bias", bias
    yield "embeddings.position_embedding.weight", old["embeddings.position_embedding"][0, 1:]
    for name, values in old.items():
        if "qkv" in name:
            for letter, part in zip("qkv", values.chunk(3), strict=True):
                yield name.replace("qkv", f"{letter}_proj"), part
        elif not name.startswith("embeddings"):
            yield name.replace("projection", "out_proj"), values


def rescaled(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The patch embedding for pixels from -1 to 1 instead of pixels standardized by MEAN and DEVIATION."""
    mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
    shift = (0.5 - mean) / deviation
    return weight * (0.5 / deviation)[:, None, None], bias + (weight.sum((2, 3)) * shift).sum(1)


# Where the text model starts: it finds in the picture what a word means


SEEN = (SHAPE_NAMES[:-1], draw.COLOURS, draw.RADII)  # what patches are labelled with


@torch.no_grad()
def see_words(model: SmolVLMForConditionalGeneration, tokenizer: Tokenizer) -> None:
    """Give every word that a patch may show a direction: image tokens have it, words look for it and are said by it.

    From chance, the text model soon learned to find things by their place, which is enough for captions, but not by
    their colour or shape, as questions ask.
    """
    text = model.model.text_model
    embeddings = text.embed_tokens.weight
    ids = [[tokenizer.token_to_id(f"Ġ{name}") for name in names] for names in SEEN]
    directions = nn.functional.normalize(torch.randn(len(embeddings), embeddings.shape[1]), dim=-1)
    spell_patches(model, [directions[of_kind] for of_kind in ids])
    shapes, colours, sizes = ids
    for layer in text.layers[:2]:
        look_for(layer.self_attn, 0, embeddings, directions, shapes + sizes)
        look_for(layer.self_attn, 1, embeddings, directions, colours + sizes)
    said = shapes + colours + sizes
    model.lm_head.weight[said] = directions[said] * embeddings.norm(dim=-1).mean()


def spell_patches(model: SmolVLMForConditionalGeneration, directions: list[Tensor]) -> None:
    """Make image tokens of what the patches show, as least squares finds it in the rows of the tower, and of chance."""
    batch = make_patches([draw.crowd(seed) for seed in range(FIRST_CROWD, FIRST_CROWD + 400)], None)
    tower, connector = model.model.vision_model, model.model.connector
    rows = tower(normalized(batch.pixels)).last_hidden_state
    # The connector has no bias, and what all patches share would drown what they differ in.
    background = rows[batch.patches[..., 0] == SHAPE_NAMES.index("nothing")].mean(0)
    tower.post_layernorm.bias -= background
    rows -= background
    known = batch.patches[..., 0] != IGNORED
    shown = torch.zeros(int(known.sum()), rows.shape[-1])
    for labels, of_kind in zip(batch.patches[known].unbind(1), directions, strict=False):
        seen = (labels != IGNORED) & (labels < len(of_kind))
        shown[seen] += of_kind[labels[seen]]
    spelling = torch.linalg.lstsq(rows[known], shown).solution.T.repeat(1, SCALE**2)
    projection = connector.modality_projection.proj.weight
    projection.copy_(spelling / SCALE**2 + projection * CHANCE)


def look_for(attention: nn.Module, group: int, embeddings: Tensor, directions: Tensor, words: list[int]) -> None:
    """Let the last head of a group start by looking at image tokens that show what the word it stands at means."""
    dim, heads = attention.head_dim, attention.num_key_value_groups
    # Dimensions that a hundred tokens turn by less than 90 degrees
    slow = torch.tensor([place for place in range(dim) if place % (dim // 2) >= 6])[: len(words)]
    attention.k_proj.weight[group * dim + slow] = directions[words] * LOOKING
    queries = attention.q_proj.weight[((group + 1) * heads - 1) * dim :][:dim]
    queries[:] = 0
    queries[slow] = nn.functional.normalize(embeddings[words], dim=-1) * LOOKING


# Batches: drawn by a worker process while the model trains


class Batch(NamedTuple):
    """Pictures and what is said about them.

    ``pixels`` [batch, height, width, 3] of 0..255; all others [batch, length]. Segment 0 is the picture, which all see;
    each higher one is a conversation of its own, -1 is padding. ``lengths`` are those of the answers, at their tokens.
    """

    pixels: Tensor
    ids: Tensor
    targets: Tensor
    positions: Tensor
    segments: Tensor
    lengths: Tensor


class Batches(Dataset[Batch]):
    """The batch of every training step, by its number: nothing to remember between runs."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __getitem__(self, step: int) -> Batch:
        first = FIRST_SCENE + step * BATCH
        scenes = [draw.imagine(seed, KINDS) for seed in range(first, first + BATCH)]
        return make_batch(scenes, [some_conversations(scene, step >= COMPARE_STEP) for scene in scenes], self.tokenizer)


Conversation = list[tuple[str, str]]  # questions with their answers


def some_conversations(scene: Scene, compare: bool) -> list[Conversation]:
    """The caption and some questions, each a conversation or all of them one."""
    chance = random.Random(f"conversations of {scene.seed}")
    turns = comparing_questions(scene, chance) if compare else naming_questions(scene, chance)
    turns = [(capitalised(text) if chance.random() < CAPITALISED else text, answer) for text, answer in turns]
    turns = [(CAPTION_PROMPT, draw.caption(scene)), *turns]
    if chance.random() >= CHAINED:
        return [[turn] for turn in turns]
    chance.shuffle(turns)
    return [turns]


def naming_questions(scene: Scene, chance: random.Random) -> Conversation:
    """A few questions of different kinds, and a list of the shapes."""
    listed = [] if scene.kind == "digit" else [(LIST_PROMPT, listing(scene, chance))]
    return some_questions(scene, presence=True) + listed


def comparing_questions(scene: Scene, chance: random.Random) -> Conversation:
    """A question of any kind, two of presence, and whether a shape has some colour, which is the easier to learn."""
    questions = draw.questions(scene)
    if scene.kind == "digit":
        return questions
    presence = [asked for asked in questions if draw.question_kind(asked[0]) == "presence"]
    others = [asked for asked in questions if asked not in presence]
    return [chance.choice(others), *chance.sample(presence, 2), comparison(scene, chance)]


def comparison(scene: Scene, chance: random.Random) -> tuple[str, str]:
    """``is the star red?``"""
    thing = chance.choice(scene.things)
    present = {other.colour for other in scene.things if other.shape == thing.shape}
    near = {other.colour for other in scene.things} - present or draw.COLOURS.keys() - present
    colour = chance.choice([thing.colour, chance.choice(sorted(near))])
    return f"is the {thing.shape} {colour}?", "yes" if colour in present else "no"


def listing(scene: Scene, chance: random.Random) -> str:
    """``star red small, big ring blue``: in any order, so that one learns to find a thing by any of its words.

    Captions teach to find things by their place alone, with which no question can be answered.
    """
    spoken = [" ".join(chance.sample(thing.words.split(), 3)) for thing in scene.things]
    return ", ".join(chance.sample(spoken, len(spoken)))


def capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def make_batch(scenes: list[Scene], conversations: list[list[Conversation]], tokenizer: Tokenizer) -> Batch:
    pixels = np.stack([np.asarray(draw.paint(scene)) for scene in scenes])
    packed = [pack(of_one, tokenizer) for of_one in conversations]
    columns = np.zeros((len(scenes), 5, max(texts.shape[1] for texts in packed)), np.int64)
    columns[:, 1], columns[:, 3] = IGNORED, -1
    for row, texts in zip(columns, packed, strict=True):
        row[:, : texts.shape[1]] = texts
    return Batch(torch.from_numpy(pixels), *torch.from_numpy(columns).unbind(1))


def pack(conversations: list[Conversation], tokenizer: Tokenizer) -> np.ndarray:
    """The picture once, then every conversation about it: the fields of a batch but its pixels, [5, length]."""
    opening = tokenizer.encode(OPENING).ids
    nothing = [0] * len(opening)
    picture = np.array([opening, [IGNORED] * len(opening), range(len(opening)), nothing, nothing])
    spoken = [speak(turns, tokenizer, len(opening), number) for number, turns in enumerate(conversations, start=1)]
    return np.concatenate([picture, *spoken], axis=1)


def speak(turns: Conversation, tokenizer: Tokenizer, first: int, number: int) -> np.ndarray:
    """A conversation from position ``first`` as the chat template writes it; only the answers are learned."""
    ids: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    for turn, (question, answer) in enumerate(turns):
        opening = "\nUser: " if turn else ""
        asked = tokenizer.encode(f"{opening}{question}{END}\nAssistant:").ids
        told = tokenizer.encode(f" {answer}{END}").ids
        ids += [*asked, *told]
        targets += [IGNORED] * (len(asked) - 1) + told + [IGNORED]
        lengths += [len(told)] * (len(asked) + len(told))
    return np.array([ids, targets, range(first, first + len(ids)), [number] * len(ids), lengths])


# Training


def train(steps: int) -> None:
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    model = SmolVLMForConditionalGeneration(make_config(tokenizer))
    # The fused attention of torch is the slower one in bfloat16 on a CPU: 0.53 s a step, not 0.37.
    model.set_attn_implementation("eager")
    model.model.vision_model.requires_grad_(False)
    optimizer = make_optimizer(model)
    done, spent = resume(model, optimizer)
    if not done:
        adopt_tower(model)
        see_words(model, tokenizer)
    began = time.monotonic() - spent
    loader = DataLoader(Batches(tokenizer), batch_size=None, sampler=range(done, steps), num_workers=1)
    model.train()
    for step, batch in enumerate(loader, start=done + 1):
        loss = learn(model, optimizer, batch, step)
        if step % 50 == 0:
            print(f"step {step} of {steps}, loss {loss:.4f}, {time.monotonic() - began:.0f} s", flush=True)
        if step % SAVE_EVERY == 0 or step == steps:
            print(f"  validation: {validate(model, tokenizer)}", flush=True)
            keep(model, optimizer, step, time.monotonic() - began)
    save_checkpoint(model, tokenizer, CHECKPOINT)


def make_optimizer(model: SmolVLMForConditionalGeneration) -> torch.optim.AdamW:
    """Two groups: the connector, and what learns to speak."""
    speaking = [*model.model.text_model.parameters(), *model.lm_head.parameters()]
    groups = [{"params": list(model.model.connector.parameters())}, {"params": speaking}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def learn(model: SmolVLMForConditionalGeneration, optimizer: torch.optim.Optimizer, batch: Batch, step: int) -> float:
    connector, speaking = optimizer.param_groups
    speaking["lr"] = float(np.interp(step, list(RATES), list(RATES.values())))
    connector["lr"] = speaking["lr"] * CONNECTOR_RATE
    logits, targets, lengths = run(model, batch)
    weights = lengths**-0.5  # short answers are hardest
    loss = (cross_entropy(logits, targets, reduction="none") * weights).sum() / weights.sum()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def run(model: SmolVLMForConditionalGeneration, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [learned, words], what they should say [learned], and the lengths of the answers that these belong to."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(
            batch.ids,
            pixel_values=normalized(batch.pixels)[:, None],
            attention_mask=packed_mask(batch.segments),
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        learned = batch.targets != IGNORED
        return model.lm_head(hidden[learned]).float(), batch.targets[learned], batch.lengths[learned]


def normalized(pixels: Tensor) -> Tensor:
    """Exactly what the image processor makes of a picture of this size, [batch, 3, height, width]."""
    return (pixels / 127.5 - 1).permute(0, 3, 1, 2)


def packed_mask(segments: Tensor) -> Tensor:
    """Added to attention scores [batch, 1, length, length]: all see the picture, and the past of their conversation."""
    seen = (segments[:, :, None] == segments[:, None, :]) | (segments == 0)[:, None, :]
    return torch.where(seen.tril(), 0.0, -1e4)[:, None]


# Validation, and state between runs


@torch.no_grad()
def validate(model: SmolVLMForConditionalGeneration, tokenizer: Tokenizer) -> str:
    """Shares of whole captions and whole answers that are right on 256 pictures."""
    scenes = [draw.imagine(seed) for seed in draw.SPLITS["validation"][:256]]
    questions = [some_questions(scene, presence=True) for scene in scenes]
    conversations = [
        [[(CAPTION_PROMPT, draw.caption(scene))], *([turn] for turn in asked)]
        for scene, asked in zip(scenes, questions, strict=True)
    ]
    batch = make_batch(scenes, conversations, tokenizer)
    logits, targets, _ = run(model, batch)
    # Greedy decoding writes a text exactly when every token is right given the ones before it.
    wrong = torch.zeros_like(batch.targets, dtype=torch.bool)
    wrong[batch.targets != IGNORED] = logits.argmax(-1) != targets
    caption = ~(wrong & (batch.segments == 1)).any(1)
    shares = {
        f"captions of {kind}": caption[[scene.kind == kind for scene in scenes]]
        for kind in ("one", "two", "three", "digit")
    }
    answers = [
        (draw.question_kind(question), not (wrong[row] & (batch.segments[row] == number)).any())
        for row, asked in enumerate(questions)
        for number, (question, _) in enumerate(asked, start=2)
    ]
    shares |= {
        kind: torch.tensor([right for other, right in answers if other == kind])
        for kind in sorted({kind for kind, _ in answers})
    }
    shares |= {"captions": caption, "answers": torch.tensor([right for _, right in answers])}
    return ", ".join(f"{name} {right.float().mean():.3f}" for name, right in shares.items())


def keep(model: nn.Module, optimizer: torch.optim.Optimizer, step: int, seconds: float) -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(parts | {"step": step, "seconds": seconds}, WORK / "state.new")
    (WORK / "state.new").replace(WORK / "state.pt")


def resume(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """The step to go on from and the seconds already spent."""
    if not (WORK / "state.pt").exists():
        return 0, 0.0
    state = torch.load(WORK / "state.pt", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    torch.set_num_threads(parser.parse_args().threads)
    train(STEPS)


if __name__ == "__main__":
    main()
