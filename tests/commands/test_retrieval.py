"""`classify`, `index` and `search` with a tiny CLIP of random weights: what they find is compared with torch."""

import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mmedge.core import find
from mmedge.core.bundle import open_bundle
from mmedge.export.build import export
from mmedge.export.load import load_model, read_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("MMEDGE_READY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


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


def indexed(mmedge, *line: object) -> dict[str, object]:
    """What `mmedge index` says that it did."""
    shown = mmedge("index", *line, "--json")
    assert shown.code == 0, shown.err
    return json.loads(shown.out)


def names(mmedge, index: Path, *query: object) -> set[str]:
    """Of everything in an index."""
    shown = mmedge("search", index, *(query or ("x",)), "--json", "--top", 1000)
    assert shown.code == 0, shown.err
    return {json.loads(line)["name"] for line in shown.out.splitlines()}


def test_the_same_pictures_are_known_wherever_and_however_they_are_named(mmedge, clip, album, index, monkeypatch):
    monkeypatch.chdir(album)
    (album / "4.png").unlink()
    done = indexed(mmedge, clip, ".", "../album/0.png", "-o", index)
    assert (done["added"], done["kept"], done["forgotten"]) == (0, 4, 1)
    assert names(mmedge, index) == {str(album / f"{number}.png") for number in range(4)}


def test_texts_are_found_by_pictures(mmedge, clip, album, index, tmp_path):
    (tmp_path / "texts.txt").write_text("a cat\na dog\n")
    assert mmedge("index", clip, tmp_path / "texts.txt", "-o", index).code == 0
    shown = mmedge("search", index, "--image", album / "0.png", "--modality", "text")
    assert sorted(line.split(maxsplit=1)[1] for line in shown.out.splitlines()) == ["a cat", "a dog"]


def test_a_line_that_is_gone_from_its_file_is_forgotten(mmedge, clip, index, tmp_path):
    (tmp_path / "texts.txt").write_text("a cat\na dog\n")
    indexed(mmedge, clip, tmp_path / "texts.txt", "-o", index)
    (tmp_path / "texts.txt").write_text("a dog\na bird\n")
    done = indexed(mmedge, clip, tmp_path / "texts.txt", "-o", index)
    assert (done["added"], done["kept"], done["forgotten"]) == (1, 1, 1)
    assert names(mmedge, index, "x", "--modality", "text") == {"a dog", "a bird"}


def test_a_text_that_is_too_long_is_named_with_its_file(mmedge, clip, tmp_path):
    (tmp_path / "texts.txt").write_text("a cat\nlong " + "word " * 200)
    shown = mmedge("index", clip, tmp_path / "texts.txt", "-o", tmp_path / "index")
    assert shown.code == 3 and "`long word " in shown.err and "...` of `" in shown.err and "texts.txt" in shown.err


def test_a_bad_picture_of_a_folder_is_an_error_and_what_was_written_stays(mmedge, clip, tmp_path):
    for number in range(33):  # more than go together
        picture(tmp_path / "many" / f"{number:02}.png", number % 5)
    (tmp_path / "many" / "99.png").write_bytes(b"x")
    shown = mmedge("index", clip, tmp_path / "many", "-o", tmp_path / "index")
    assert shown.code == 3 and "99.png" in shown.err and "--skip-bad" in shown.err
    assert names(mmedge, tmp_path / "index") == {str(tmp_path / "many" / f"{number:02}.png") for number in range(32)}


def test_what_was_good_and_is_bad_now_is_found_no_more(mmedge, clip, album, index):
    (album / "3.png").write_bytes(b"x")
    done = indexed(mmedge, clip, album, "-o", index, "--skip-bad")
    assert done["skipped"] == [str(album / "3.png")] and done["forgotten"] == 1
    assert names(mmedge, index) == {str(album / f"{number}.png") for number in (0, 1, 2, 4)}


def test_what_lies_in_a_folder_that_cannot_be_looked_into_is_kept(mmedge, clip, album, index, monkeypatch):
    picture(album / "deep" / "new.png", 7)
    indexed(mmedge, clip, album, "-o", index)
    walk = os.walk

    def refusing(top, onerror):  # as root may look into all
        yield next(walk(top))
        onerror(PermissionError(13, "Permission denied", str(album / "deep")))

    monkeypatch.setattr(os, "walk", refusing)
    (album / "4.png").unlink()
    shown = mmedge("index", clip, album, "-o", index)
    assert shown.code == 3 and f"cannot look at `{album / 'deep'}`: permission denied" in shown.err
    done = indexed(mmedge, clip, album, "-o", index, "--skip-bad")
    assert done["skipped"] == [str(album / "deep")] and done["forgotten"] == 1
    assert str(album / "deep" / "new.png") in names(mmedge, index)


def test_a_link_to_nothing_is_bad(mmedge, clip, album, index):
    (album / "link.png").symlink_to(album / "nothing.png")
    shown = mmedge("index", clip, album, "-o", index)
    assert shown.code == 3 and "link.png" in shown.err and "--skip-bad" in shown.err
    assert indexed(mmedge, clip, album, "-o", index, "--skip-bad")["skipped"] == [str(album / "link.png")]


def test_a_picture_whose_name_is_no_text_is_indexed(mmedge, clip, album, index):
    os.rename(album / "4.png", os.path.join(os.fsencode(album), b"\xff.png"))
    assert indexed(mmedge, clip, album, "-o", index)["added"] == 1
    assert str(album / "\\xff.png") in names(mmedge, index)


def test_sources_are_looked_at_before_an_index_is_made(mmedge, clip, tmp_path):
    (tmp_path / "empty").mkdir()
    for source, code in ((tmp_path / "empty", 3), (tmp_path / "none", 2)):
        assert mmedge("index", clip, source, "-o", tmp_path / "index").code == code
        assert not (tmp_path / "index").exists()


def test_an_index_keeps_its_precision_unless_another_is_asked_for(mmedge, clip, album, tmp_path):
    indexed(mmedge, clip, album, "-o", tmp_path / "index", "--precision", "int8")
    picture(album / "new.png", 7)
    assert indexed(mmedge, clip, album, "-o", tmp_path / "index")["added"] == 1
    shown = mmedge("index", clip, album, "-o", tmp_path / "index", "--precision", "float16")
    assert shown.code == 2 and "is in int8, not in float16" in shown.err


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


def test_a_graph_of_neighbours_is_kept_up_to_date_once_it_is_there(mmedge, clip, album, index):
    assert indexed(mmedge, clip, album, "-o", index)["near_recall_at_10"] is None
    indexed(mmedge, clip, album, "-o", index, "--approximate", "always")
    picture(album / "new.png", 7)
    assert indexed(mmedge, clip, album, "-o", index)["near_recall_at_10"] == 1.0
    shown = mmedge("search", index, "--image", album / "new.png", "--top", 1)
    assert "new.png" in shown.out and not shown.err
    assert indexed(mmedge, clip, album, "-o", index, "--approximate", "never")["near_recall_at_10"] is None
    assert not index.with_name("album.index.near").exists()


@pytest.mark.parametrize("approximate", ["auto", "always", "never"])
def test_another_index_where_a_graph_would_be_is_left_alone(mmedge, clip, album, index, approximate):
    other = index.with_name("album.index.near")
    indexed(mmedge, clip, album, "-o", other)
    before = other.read_bytes()
    picture(album / "new.png", 7)
    shown = mmedge("index", clip, album, "-o", index, "--approximate", approximate)
    assert other.read_bytes() == before
    assert shown.code == (2 if approximate == "always" else 0)
    assert len(names(mmedge, index)) == (5 if approximate == "always" else 6)  # refused before the work


def test_a_folder_where_a_graph_would_be_is_refused_before_the_work(mmedge, clip, album, index):
    index.with_name("album.index.near").mkdir()
    picture(album / "new.png", 7)
    shown = mmedge("index", clip, album, "-o", index, "--approximate", "always")
    assert shown.code == 2 and "album.index.near`: it is a folder" in shown.err and len(names(mmedge, index)) == 5
    assert indexed(mmedge, clip, album, "-o", index)["added"] == 1


def test_a_graph_from_elsewhere_is_told_of_and_all_are_compared(mmedge, clip, album, index):
    indexed(mmedge, clip, album, "-o", index, "--approximate", "always")
    near = index.with_name("album.index.near")
    shutil.copy(near, index.with_name("copy"))
    index.with_name("copy").replace(near)
    shown = mmedge("search", index, "a cat")
    assert shown.code == 0 and len(shown.out.splitlines()) == 5 and "was not made here" in shown.err


def test_without_usearch_all_are_compared_and_that_is_told(mmedge, clip, album, index, monkeypatch):
    indexed(mmedge, clip, album, "-o", index, "--approximate", "always")
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    shown = mmedge("search", index, "a cat")
    assert shown.code == 0 and len(shown.out.splitlines()) == 5 and "`usearch.index` is not installed" in shown.err


@pytest.fixture(scope="session")
def other_clip(checkpoint, tmp_path_factory) -> Path:
    """Of other weights."""
    folder = tmp_path_factory.mktemp("other_clip")
    shutil.copytree(checkpoint, folder / "checkpoint")
    weights = load_file(folder / "checkpoint" / "model.safetensors")
    weights["visual_projection.weight"] *= -1
    save_file(weights, folder / "checkpoint" / "model.safetensors", {"format": "pt"})
    export(str(folder / "checkpoint"), output=folder / "clip.bundle")
    return folder / "clip.bundle"


def test_an_index_of_another_bundle_is_refused(mmedge, clip, other_clip, classifier, index, album, tmp_path):
    for shown in (
        mmedge("search", index, "a cat", "--bundle", other_clip),
        mmedge("index", other_clip, album, "-o", index),
    ):
        assert shown.code == 2 and "was made by another bundle" in shown.err and not shown.out
    assert "cannot `embed`" in mmedge("index", classifier, album, "-o", index).err  # it has no text tower
    shutil.copytree(clip, tmp_path / "same.bundle")
    assert mmedge("search", index, "a cat", "--bundle", tmp_path / "same.bundle").code == 0


def test_an_index_of_another_width_is_damaged(mmedge, index):
    with closing(sqlite3.connect(index)) as database, database:
        database.execute("UPDATE about SET value = '12' WHERE name = 'width'")
        database.execute("UPDATE items SET vector = zeroblob(24)")
    shown = mmedge("search", index, "a cat")
    assert shown.code == 4 and "is damaged: its vectors are 12 wide" in shown.err


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
