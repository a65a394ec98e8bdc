"""Draw the calibration set for `builtin:scenes`: python calib/scenes/make.py"""

from __future__ import annotations

import json
import random
from pathlib import Path

from mmedge.builtin.scenes import draw

FOLDER = Path(__file__).resolve().parent
SEEDS = draw.SPLITS["calibration"][:128]


def sample(number: int, seed: int) -> dict[str, str]:
    """Save a picture; its caption, and one of its questions with the answer."""
    picture, caption, questions = draw.draw(seed)
    name = f"{number:04}.jpg"
    # A JPEG of this quality is half the size of a PNG: the pictures are noisy.
    picture.save(FOLDER / name, quality=95, subsampling=0)
    question, answer = random.Random(seed).choice(questions)
    return {"image": name, "question": question, "answer": answer, "caption": caption}


def main() -> None:
    """Write the pictures and `calibration.jsonl` beside this file."""
    lines = [json.dumps(sample(number, seed)) for number, seed in enumerate(SEEDS)]
    (FOLDER / "calibration.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
