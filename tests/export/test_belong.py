"""Checkpoints of vision-language models whose files do not belong together: refused before a weight is read."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmedge import cli
from mmedge.core import find
from mmedge.core.family import Request
from mmedge.errors import InputError, ModelError
from mmedge.export.load import load_model, read_checkpoint
from mmedge.export.prepare import prepare

FAMILIES = Path(__file__).parents[1] / "families" / "checkpoints"
SEEING = ("smolvlm", "llava", "internvl")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """``made(name)``: a tiny checkpoint of the family, made once."""
    folders = {}

    def make(name):
        if name not in folders:
            spec = importlib.util.spec_from_file_location(name, FAMILIES / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            folders[name] = module.make(find.family(name).tiny[0], tmp_path_factory.mktemp(name))
        return folders[name]

    return make


@pytest.fixture
def copied(made, tmp_path):
    return lambda name: shutil.copytree(made(name), tmp_path / "checkpoint")


@pytest.fixture
def folder(copied) -> Path:
    return copied("smolvlm")


def edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def refusal(folder: Path):
    """One line that names the checkpoint, with a hint, and no weight read: there are none."""
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        prepare(str(folder))
    assert str(folder) in caught.value.message and "\n" not in caught.value.message and caught.value.hint
    return caught.value


@pytest.mark.parametrize("name", SEEING)
def test_a_checkpoint_whose_files_belong_together_is_taken(name, made):
    assert prepare(str(made(name))).plan.family.name == name


# Image tokens


COUNTS = {
    "smolvlm": ("image_seq_len", "writes 5 image tokens for each of 5 tiles of a picture, the model makes 4 rows"),
    "internvl": ("image_seq_length", "writes 5 image tokens for each of 7 tiles of a picture, the model makes 4 rows"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_another_number_of_image_tokens_than_of_rows_is_refused_with_both(name, copied):
    key, message = COUNTS[name]
    folder = copied(name)
    edit(folder / "processor_config.json", lambda value: value.update({key: 5}))
    assert message in refusal(folder).message


def test_image_tokens_are_those_that_the_checkpoints_own_processor_writes(copied):
    folder = copied("llava")
    edit(folder / "processor_config.json", lambda value: value.update(patch_size=16))
    assert "writes 4 image tokens for a picture, the model makes 16 rows" in refusal(folder).message


def test_a_model_that_makes_fewer_rows_than_its_processor_has_places_for_is_refused(folder):
    edit(folder / "config.json", lambda value: value.update(scale_factor=4))
    assert "writes 4 image tokens for each of 5 tiles of a picture, the model makes 1 rows" in refusal(folder).message


@pytest.mark.parametrize(("name", "key"), [("smolvlm", "image_token_id"), ("llava", "image_token_index")])
def test_another_image_token_in_the_model_than_in_the_tokenizer_is_refused(name, key, copied):
    folder = copied(name)
    edit(folder / "config.json", lambda value: value.update({key: 1, "image_token_id": 1}))
    assert "image tokens for a picture, the model makes" in refusal(folder).message


def test_a_count_that_does_not_match_ends_check_and_export_with_one_line(folder, capfd):
    edit(folder / "processor_config.json", lambda value: value.update(image_seq_len=5))
    for command in (["check", str(folder)], ["export", str(folder), "-o", str(folder.parent / "bundle")]):
        assert cli.run(command) == ModelError.exit_code
        shown = capfd.readouterr().err
        assert "writes 5 image tokens" in shown and "hint: " in shown and "Traceback" not in shown
        assert not (folder.parent / "bundle").exists()


# Files that are missing


MISSING = {
    "preprocessor_config.json": "has no preprocessor_config.json, which says how pictures are scaled and cut",
    "chat_template.jinja": "has no chat template: it is in none of chat_template.jinja, chat_template.json, ",
    "tokenizer.json": "has no tokenizer.json, which holds the vocabulary",
}


@pytest.mark.parametrize("name", SEEING)
@pytest.mark.parametrize("file", MISSING)
def test_a_missing_file_is_named(file, name, copied):
    folder = copied(name)
    (folder / file).unlink()
    assert MISSING[file] in refusal(folder).message


@pytest.mark.parametrize("name", SEEING)
def test_a_missing_processor_config_is_named_where_the_processor_is_none_without(name, copied):
    folder = copied(name)
    (folder / "processor_config.json").unlink()
    assert "has no processor_config.json" in refusal(folder).hint


def test_a_missing_tokenizer_config_is_named_where_the_processor_is_none_without(copied):
    folder = copied("internvl")
    (folder / "tokenizer_config.json").unlink()
    assert "has no tokenizer_config.json" in refusal(folder).hint


def test_settings_of_pictures_may_be_in_the_file_of_the_whole_processor(folder):
    pictures = json.loads((folder / "preprocessor_config.json").read_text())
    edit(folder / "processor_config.json", lambda value: value.update(image_processor=pictures))
    (folder / "preprocessor_config.json").unlink()
    assert prepare(str(folder))


# config.json of other weights


OTHER = {
    "a layer fewer": ({"num_hidden_layers": 1}, r"no place for, the first is `model.text_model.layers.1."),
    "a layer more": ({"num_hidden_layers": 3}, r"lacks 9 of .*, the first is `model.text_model.layers.2."),
    "inner width": ({"intermediate_size": 65}, r"mlp.down_proj.weight`: \[64, 64\], by config.json \[64, 65\]"),
    "width": ({"hidden_size": 32}, r"`lm_head.weight`: \[288, 64\], by config.json \[288, 32\]"),
    "vocabulary": ({"vocab_size": 300}, r"`lm_head.weight`: \[288, 64\], by config.json \[300, 64\]"),
    "heads": ({"num_key_value_heads": 4}, r"k_proj.weight`: \[32, 64\], by config.json \[64, 64\]"),
}


@pytest.mark.parametrize("case", OTHER)
def test_a_configuration_of_other_weights_is_refused_with_the_first_tensor(case, folder):
    change, message = OTHER[case]
    edit(folder / "config.json", lambda value: value["text_config"].update(change))
    with pytest.raises(ModelError, match=message) as caught:
        load_model(read_checkpoint(folder))
    assert caught.value.hint == "is config.json that of these weights?"


def test_layers_of_which_the_configuration_says_two_numbers_are_told_with_both(copied):
    folder = copied("internvl")
    edit(folder / "config.json", lambda value: value["text_config"].update(num_hidden_layers=1))
    with pytest.raises(ModelError, match=r"`num_hidden_layers` \(1\) must be equal to the number of `layer_types` \(2"):
        prepare(str(folder))


# What is asked of a model that has no room for it


@pytest.mark.parametrize("name", SEEING)
def test_a_context_that_is_too_long_is_told_with_both_lengths(name, made):
    checkpoint = read_checkpoint(made(name))
    most = checkpoint.config["model"]["text_config"]["max_position_embeddings"]
    pictures = (np.zeros((24, 40, 3), np.uint8),)
    family = checkpoint.family
    room = most - len(family.prepare(checkpoint.config, checkpoint.tokenizer, Request(pictures, "b")).tokens)
    family.prepare(checkpoint.config, checkpoint.tokenizer, Request(pictures, "b" * room))
    with pytest.raises(InputError, match=f"are {most} tokens long, the model reads at most {most - 1}") as caught:
        family.prepare(checkpoint.config, checkpoint.tokenizer, Request(pictures, "b" * (room + 1)))
    assert "fewer pictures" in caught.value.hint
