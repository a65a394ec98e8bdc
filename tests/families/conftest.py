"""Pictures of many sizes and modes, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

KINDS = [
    (96, 96, "RGB", "png"),
    (384, 384, "RGB", "png"),
    (640, 480, "RGB", "jpeg"),
    (480, 640, "L", "jpeg"),
    (97, 61, "RGBA", "png"),
    (61, 97, "LA", "png"),
    (33, 300, "P", "png"),
    (300, 33, "P", "gif"),
    (1, 1, "RGB", "png"),
    (1, 70, "L", "png"),
    (70, 1, "RGB", "bmp"),
    (3, 2, "RGBA", "png"),
    (250, 250, "CMYK", "jpeg"),
    (128, 64, "1", "png"),
    (64, 128, "I;16", "png"),
    (200, 150, "RGB", "webp"),
    (150, 200, "RGBA", "webp"),
    (512, 511, "RGB", "jpeg"),
    (383, 385, "RGB", "bmp"),
    (1023, 257, "RGB", "jpeg"),
]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> list[Path]:
    """Twenty pictures of different sizes, modes and file formats: soft blots of colour."""
    folder, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    return [_write(folder / f"{index}.{kind[3]}", *kind[:3], generator) for index, kind in enumerate(KINDS)]


def _write(path: Path, width: int, height: int, mode: str, generator: np.random.Generator) -> Path:
    blots = generator.integers(0, 256, (max(1, height // 24), max(1, width // 24), 3), np.uint8)
    image = Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC)
    if mode == "I;16":
        grey = np.asarray(image.convert("L"), np.uint16)
        image = Image.fromarray(grey << 8 | grey)
    elif mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(generator.integers(0, 256, (height, width), np.uint8)))
        image = image.convert(mode)
    else:
        image = image.convert(mode)
    image.save(path)
    return path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests run side by side, those of one export or file stay together: what they share is made once."""
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        parameters = getattr(item, "callspec", None)
        made = [name for name in ("exported", "source") if parameters and name in parameters.params]
        group = str(parameters.params[made[0]]) if made else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
