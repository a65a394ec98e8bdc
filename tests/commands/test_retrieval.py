"""`classify`, `index` and `search` with a tiny CLIP of random weights: what they find is compared with torch."""

import json
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmedge.core import find
from mmedge.core.bundle import open_bundle
from mmedge.export.build import export
from mmedge.export.load import load_model, read_checkpoint

pytestmark = pytest.mark.slow
LABELS = ("a cat", "two dogs in the rain", "ein Käse")


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20 + 7 * seed, 40, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    path = Path(__file__).parents[1] / "families" / "checkpoints" / "clip.py"
    spec = spec_from_file_location("checkpoint_of_clip", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make(find.family("clip").tiny[0], tmp_path_factory.mktemp("clip") / "checkpoint")


@pytest.fixture(scope="session")
def clip(checkpoint) -> Path:
    export(str(checkpoint), output=checkpoint.parent / "clip.bundle")
    return checkpoint.parent / "clip.bundle"


@pytest.fixture(scope="session")
def classifier(checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "labels.txt").write_text("\n".join(LABELS), "utf-8")
    templates = ("a photo of {}", "the {}!")
    export(str(checkpoint), output=folder / "bundle", labels=folder / "labels.txt", templates=templates)
    return folder / "bundle"


@pytest.fixture
def album(tmp_path) -> Path:
    for seed in range(5):
        picture(tmp_path / "album" / f"{seed}.png", seed)
    return tmp_path / "album"


def likelihoods(checkpoint: Path, path: Path, templates: tuple[str, ...]) -> torch.Tensor:
    """Of `LABELS` by the checkpoint's own processor and model, the mean of the templates' texts."""
    read = read_checkpoint(checkpoint)
    model, rows = load_model(read), []
    with torch.inference_mode():
        for label in LABELS:
            texts = [template.replace("{}", label) for template in templates]
            inputs = read.processor(text=texts, images=Image.open(path), padding=True, return_tensors="pt")
            outputs = model(**inputs)
            rows.append(torch.nn.functional.normalize(outputs.text_embeds.mean(0), dim=-1))
        logits = outputs.image_embeds @ torch.stack(rows).T * model.logit_scale.exp()
    return logits.softmax(-1)[0]


def test_probabilities_are_those_of_torch(mmedge, checkpoint, clip, album):
    line = ("classify", clip, album / "3.png", "--labels", ",".join(LABELS), "--json", "--top", 3)
    shown = mmedge(*line, "--template", "a photo of {}", "--template", "the {}!")
    found = {each["label"]: each["probability"] for each in json.loads(shown.out)["labels"]}
    want = likelihoods(checkpoint, album / "3.png", ("a photo of {}", "the {}!"))
    assert shown.code == 0 and [found[label] for label in LABELS] == pytest.approx(want.tolist(), abs=1e-5)


def test_a_bundle_with_its_labels_inside_classifies_without_the_text_tower(mmedge, checkpoint, classifier, album):
    shown = mmedge("classify", classifier, album / "3.png", "--json", "--top", 3)
    found = {each["label"]: each["probability"] for each in json.loads(shown.out)["labels"]}
    want = likelihoods(checkpoint, album / "3.png", ("a photo of {}", "the {}!"))
    assert [found[label] for label in LABELS] == pytest.approx(want.tolist(), abs=1e-5)
    manifest = open_bundle(classifier).manifest
    assert [graph.component for graph in manifest.graphs] == ["vision"] and "tokenizer" not in manifest.assets
    assert mmedge("verify", classifier).code == 0


def test_the_likeliest_labels_are_lines_the_likeliest_first(mmedge, clip, album):
    shown = mmedge("classify", clip, album / "0.png", "--labels", "a,b,c", "--top", 2)
    first, second = (float(line.split()[0]) for line in shown.out.splitlines())
    assert first >= second


def test_labels_come_from_a_file_too(mmedge, clip, album, tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\n")
    line = ("classify", clip, album / "0.png")
    assert mmedge(*line, "--labels-file", tmp_path / "labels.txt") == mmedge(*line, "--labels", "a,b")


def test_one_bad_picture_of_several_is_told_and_the_others_go_on(mmedge, clip, album, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"x")
    shown = mmedge("classify", clip, tmp_path / "bad.png", album / "0.png", "--labels", "a,b")
    assert shown.code == 3 and "bad.png" in shown.err and "0.png:" in shown.out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "no labels are given"),
        (("--labels", "a", "--labels-file", "f"), 2, "labels are given twice"),
        (("--labels", " , "), 3, "--labels has no labels"),
        (("--labels", "a,b,a"), 3, "--labels has the label `a` 2 times"),
        (("--labels", "a", "--template", "photo"), 3, "the template `photo` has no {}"),
        (("--labels", "a", "--top", 0), 2, "--top is 0, it must be at least 1"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(mmedge, clip, album, options, code, message):
    shown = mmedge("classify", clip, album / "0.png", *options)
    assert shown.code == code and message in shown.err and not shown.out


def test_labels_inside_a_bundle_are_all_that_it_knows(mmedge, classifier, album):
    shown = mmedge("classify", classifier, album / "0.png", "--labels", "a,b")
    assert shown.code == 2 and "has 3 labels inside" in shown.err


def test_a_bundle_that_writes_does_not_embed(mmedge, captioner, album, tmp_path):
    assert "cannot `embed`" in mmedge("classify", captioner, album, "--labels", "a").err
    assert "cannot `embed`" in mmedge("index", captioner, album, "-o", tmp_path / "index").err
    assert not (tmp_path / "index").exists()


def test_one_that_embeds_does_not_write(mmedge, clip, album):
    assert "cannot `caption`" in mmedge("caption", clip, album).err


@pytest.fixture
def index(mmedge, clip, album, tmp_path) -> Path:
    assert mmedge("index", clip, album, "-o", tmp_path / "album.index").code == 0
    return tmp_path / "album.index"


def test_a_picture_finds_itself_first(mmedge, index, album):
    shown = mmedge("search", index, "--image", album / "2.png", "--json")
    hits = [json.loads(line) for line in shown.out.splitlines()]
    assert len(hits) == 5 and hits[0]["name"] == str(album / "2.png") and hits[0]["cosine"] > 0.999


def test_pictures_that_a_text_finds_are_in_the_order_of_torch(mmedge, checkpoint, clip, album, tmp_path):
    mmedge("index", clip, album, "-o", tmp_path / "exact", "--precision", "float32")
    read = read_checkpoint(checkpoint)
    paths = sorted(album.iterdir())
    inputs = read.processor(text=["a cat"], images=[Image.open(path) for path in paths], return_tensors="pt")
    with torch.inference_mode():
        cosines = load_model(read)(**inputs)
    want = (cosines.image_embeds @ cosines.text_embeds[0]).tolist()
    shown = mmedge("search", tmp_path / "exact", "a cat", "--json")
    found = {hit["name"]: hit["cosine"] for hit in map(json.loads, shown.out.splitlines())}
    assert [found[str(path)] for path in paths] == pytest.approx(want, abs=1e-5)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_only_what_changed_is_embedded_again(mmedge, clip, album, index):
    picture(album / "1.png", 9)
    picture(album / "deep" / "new.png", 8)
    (album / "4.png").unlink()
    shown = mmedge("index", clip, album, "-o", index, "--json")
    done = json.loads(shown.out)
    assert (done["added"], done["kept"], done["forgotten"], done["skipped"]) == (2, 3, 1, [])


def test_texts_are_found_by_pictures(mmedge, clip, album, index, tmp_path):
    (tmp_path / "texts.txt").write_text("a cat\na dog\n")
    assert mmedge("index", clip, tmp_path / "texts.txt", "-o", index).code == 0
    shown = mmedge("search", index, "--image", album / "0.png", "--modality", "text")
    assert sorted(line.split(maxsplit=1)[1] for line in shown.out.splitlines()) == ["a cat", "a dog"]


def test_a_bad_picture_of_a_folder_is_an_error_and_what_was_written_stays(mmedge, clip, album, index):
    (album / "9.png").write_bytes(b"x")
    picture(album / "8.png", 8)
    shown = mmedge("index", clip, album, "-o", index)
    assert shown.code == 3 and "9.png" in shown.err and "--skip-bad" in shown.err
    assert len(mmedge("search", index, "x").out.splitlines()) >= 5


def test_bad_pictures_are_skipped_and_each_is_told_where_that_is_asked_for(mmedge, clip, album, index):
    (album / "9.png").write_bytes(b"x")
    shown = mmedge("index", clip, album, "-o", index, "--skip-bad", "--json")
    assert shown.code == 0 and json.loads(shown.out)["skipped"] == [str(album / "9.png")] and "9.png" in shown.err


def test_what_rounding_costs_is_told(mmedge, clip, tmp_path):
    for seed in range(24):
        picture(tmp_path / "many" / f"{seed}.png", seed)
    shown = mmedge("index", clip, tmp_path / "many", "-o", tmp_path / "small", "--precision", "int8", "--json")
    recalls = json.loads(shown.out)["recall"]
    assert set(recalls) == {"1", "5", "10"} and all(0.5 < share <= 1 for share in recalls.values())


def test_a_graph_of_neighbours_finds_what_an_exact_search_finds(mmedge, clip, album, index):
    line = ("search", index, "--image", album / "2.png", "--json")
    exact = mmedge(*line)
    shown = mmedge("index", clip, album, "-o", index, "--approximate", "always", "--json")
    assert json.loads(shown.out)["near_recall_at_10"] == 1.0
    first, second = ([json.loads(row) for row in found.out.splitlines()] for found in (exact, mmedge(*line)))
    assert [hit["name"] for hit in first] == [hit["name"] for hit in second]
    assert mmedge(*line, "--exact") == exact
    assert json.loads(mmedge("index", clip, album, "-o", index, "--json").out)["near_recall_at_10"] is None


def test_an_index_of_another_bundle_is_refused(mmedge, clip, classifier, index, album, tmp_path):
    other = tmp_path / "other.bundle"
    export_again = mmedge("index", classifier, album, "-o", index)
    assert export_again.code == 2  # it has no text tower, and cannot `embed`
    shutil.copytree(clip, other)
    assert mmedge("search", index, "a cat", "--bundle", other).code == 0  # the same, elsewhere


def test_a_bundle_that_moved_has_to_be_named(mmedge, checkpoint, album, tmp_path):
    export(str(checkpoint), output=tmp_path / "here.bundle")
    mmedge("index", tmp_path / "here.bundle", album, "-o", tmp_path / "index")
    (tmp_path / "here.bundle").rename(tmp_path / "there.bundle")
    shown = mmedge("search", tmp_path / "index", "a cat")
    assert shown.code == 2 and "is not there any more" in shown.err and "--bundle" in shown.err
    assert mmedge("search", tmp_path / "index", "a cat", "--bundle", tmp_path / "there.bundle").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing is named to look for"),
        (("a", "--image", "b.png"), "a text and a picture are named"),
        (("a", "--top", 0), "--top is 0"),
        (("a", "--modality", "text"), "has nothing of the modality `text` in it"),
    ],
)
def test_a_search_that_makes_no_sense_is_a_usage_error(mmedge, index, options, message):
    shown = mmedge("search", index, *options)
    assert shown.code == 2 and message in shown.err and not shown.out


def test_a_text_that_is_too_long_is_refused(mmedge, index):
    shown = mmedge("search", index, "word " * 200)
    assert shown.code == 3 and "the model reads at most 77" in shown.err


def test_labels_of_a_model_that_writes_are_refused_before_any_work(mmedge, checkpoints, tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\n")
    shown = mmedge("export", checkpoints[0], "-o", tmp_path / "bundle", "--labels", tmp_path / "labels.txt")
    assert shown.code == 2 and "has no use for labels" in shown.err


def test_templates_without_labels_are_refused(mmedge, checkpoint, tmp_path):
    shown = mmedge("export", checkpoint, "-o", tmp_path / "bundle", "--template", "a {}")
    assert shown.code == 2 and "templates are given, and no labels" in shown.err
