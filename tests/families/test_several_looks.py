"""A model that looks at a picture tile by tile is profiled with all of its looks, put together in its own way."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmedge.core import find
from mmedge.core.bundle import open_bundle
from mmedge.export.build import export
from mmedge.profiling.layers.engine_profiles import stages_us
from mmedge.profiling.layers.recorded import Recorded, engines_of, prompt_of, runs_in
from mmedge.profiling.layers.reference import reference


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    work = tmp_path_factory.mktemp("llava_onevision")
    spec = spec_from_file_location("checkpoint", Path(__file__).parent / "checkpoints" / "llava_onevision.py")
    checkpoints = module_from_spec(spec)
    spec.loader.exec_module(checkpoints)
    folder = checkpoints.make(find.family("llava_onevision").tiny[0], work / "checkpoint")
    export(str(folder), output=work / "bundle", precision="float32")
    return open_bundle(work / "bundle")


def asked(bundle, folder: Path, height: int, width: int) -> Recorded:
    picture = folder / f"{height}x{width}.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)).save(picture)
    return Recorded(picture.name, prompt_of(bundle, picture, "What is it?"), (5, 6))


@pytest.mark.slow
def test_a_tower_computes_as_much_for_each_of_its_looks(bundle, tmp_path):
    computed = {}
    for size in ((40, 40), (40, 200)):
        one = asked(bundle, tmp_path, *size)
        total = reference(bundle, one).total("vision", "encode", 2)
        computed[len(one.prompt.looks)] = total.quantized_flops + total.rest_flops
        assert runs_in("encode", (one,)) == len(one.prompt.looks)
    (few, least), (many, most) = sorted(computed.items())
    assert many > few and most * few == least * many


@pytest.mark.slow
def test_every_stage_of_it_takes_time(bundle, tmp_path):
    times = stages_us(bundle, engines_of(bundle, None), 1, (asked(bundle, tmp_path, 40, 200),))
    assert times["vision", "encode"] > 0 and times["decoder", "prefill"] > 0 and times["decoder", "decode_loop"] > 0
