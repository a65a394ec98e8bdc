"""The export command from its arguments to its bundle: what it refuses, and that it makes the same bundle again."""

import json
import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmedge import cli
from mmedge.core.bundle import open_bundle
from mmedge.errors import UsageError
from mmedge.export import estimate
from mmedge.export.prepare import choose_recipe

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def captioner(tiny_checkpoint, tmp_path_factory) -> Path:
    return tiny_checkpoint(0, tmp_path_factory.mktemp("captioner") / "checkpoint")


@pytest.fixture
def refused(captioner, tmp_path, capfd):
    """``refused("--precision", "int8", code=2)``: the error and the hint that an export ends with."""

    def run(*arguments: object, code: int = 2, output: Path | str = tmp_path / "out") -> tuple[str, str]:
        before = sorted(tmp_path.rglob("*"))
        assert cli.run(["export", str(captioner), "-o", str(output), *map(str, arguments)]) == code
        printed = capfd.readouterr()
        assert printed.out == "" and "Traceback" not in printed.err
        assert sorted(tmp_path.rglob("*")) == before, "something was left"
        found = re.search(r"^error: (.*)\n(?:\nhint: (.*)\n)?\Z", printed.err, re.MULTILINE)
        return found[1], found[2] or ""

    return run


def draw(folder: Path, count: int) -> Path:
    """Pictures of noise in blocks, of several sizes."""
    folder.mkdir()
    generator = np.random.default_rng(3)
    for index in range(count):
        blocks = generator.integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(blocks).resize((20 + 5 * index, 30)).save(folder / f"{index}.png")
    return folder


# What is asked for


def test_static_int8_without_calibration_is_refused(refused):
    message, hint = refused("--precision", "int8")
    assert message == "static int8 takes its ranges from calibration data, and none is given"
    assert hint.startswith("--calibration FOLDER")


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--target", "rasberry-pi-5"), "no target is called `rasberry-pi-5`", "did you mean `raspberry-pi-5`?"),
        (("--target", "nothing.toml"), "cannot read the target `nothing.toml`: No such file", ""),
        (("--precision", "int9"), "`int9` is no precision", "did you mean `int8`?"),
        (("--precision", "float16", "--target", "raspberry-pi-5"), "`raspberry-pi-5` cannot run `encoder`", "float32"),
        (("--recipe", "nothing.toml"), "cannot read the recipe `nothing.toml`", ""),
        (("--skip-bad", "1.5"), "`--skip-bad` is 1.5", ""),
        (("--skip-bad", "nan"), "`--skip-bad` is nan", ""),
    ],
)
def test_what_the_options_ask_for_in_vain_is_refused(arguments, message, hint, refused):
    error, advice = refused(*arguments)
    assert error.startswith(message) and hint in advice


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("", "missing required field `name`"),
        ('name = "x"', "missing required field `model`"),
        ('name = "x"\nmodel = "x"\nprecison = "int8"', "unknown field `precison`"),
        ('name = "x"\nmodel = "x"\n[[component]]\nname = "vision"\nprecision = "int8"', "no component `vision`"),
        ('name = "x"\nmodel = "x"\nfamily = "whisper"', "the recipe is for a `whisper` model"),
        ('name = "x"\nmodel = "x"\n[accept]\ncosine = nan\nanswers = 1.0', "`accept.cosine` is nan"),
        ('name = "x"\nmodel = "x"\n[calibration]\nfiles = "x"\nmethod = "magic"', "`calibration.method` is `magic`"),
        ("\0", "Invalid statement"),
        ("[" * 5000, ""),
    ],
)
def test_a_recipe_with_a_mistake_is_refused(recipe, message, refused, tmp_path):
    (tmp_path / "recipe.toml").write_text(recipe)
    error, _ = refused("--recipe", tmp_path / "recipe.toml")
    assert message in error


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.mkdir(), "has no samples"),
        (lambda path: path.write_text("x"), "is no calibration data"),
    ],
)
def test_calibration_data_that_is_none_is_refused(fill, message, refused, tmp_path):
    fill(tmp_path / "pictures")
    error, _ = refused("--precision", "int8", "--calibration", tmp_path / "pictures", code=3)
    assert message in error


def test_what_the_device_has_no_memory_for_is_refused(refused, tmp_path):
    target = Path(estimate.__file__).parents[1] / "targets" / "cpu.toml"
    text = re.sub("memory_mb = [0-9]+", "memory_mb = 100", target.read_text())
    (tmp_path / "small.toml").write_text(text)
    error, _ = refused("--target", tmp_path / "small.toml", code=6)
    assert re.fullmatch(r"running it takes about 1[0-9]{2} MiB, `cpu` has 100", error)


def test_what_this_machine_has_no_memory_for_is_refused(refused, monkeypatch):
    monkeypatch.setattr(estimate, "usable_memory", lambda: 300 << 20)
    error, hint = refused(code=6)
    assert (
        re.fullmatch(r"exporting it takes about [0-9]+ MiB, this machine has 300", error) and "larger machine" in hint
    )


def test_a_processor_that_makes_other_pictures_than_the_model_reads_is_refused(captioner, tmp_path, capfd):
    folder = shutil.copytree(captioner, tmp_path / "checkpoint")
    settings = json.loads((folder / "processor_config.json").read_text())
    settings["image_processor"]["size"] = {"height": 48, "width": 64}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    assert cli.run(["export", str(folder), "-o", str(tmp_path / "out")]) == 4
    assert "`pixel_values` of `encoder` is float32 [1, 3, 48, 64], expected" in capfd.readouterr().err
    assert os.listdir(tmp_path) == ["checkpoint"]


# Where it is to be written


PLACES = {
    "the root of the disk": (lambda path: Path("/"), "it is the root of the disk"),
    "in a folder that is missing": (lambda path: path / "a" / "b", "does not exist"),
    "in a file": (lambda path: (path / "file").write_text("x") and path / "file" / "b", "is not a folder"),
    "a file": (lambda path: (path / "file").write_text("x") and path / "file", "it is a file or a link"),
    "a link": (lambda path: (path / "link").symlink_to(path) or path / "link", "link"),
    "a broken link": (lambda path: (path / "link").symlink_to("nothing") or path / "link", "link"),
    "a pipe": (lambda path: os.mkfifo(path / "pipe") or path / "pipe", "it is a file or a link"),
    "a folder": (lambda path: (path / "folder").mkdir() or path / "folder", "exists already"),
    "too long a name": (lambda path: path / ("n" * 300), "bytes"),
    "too long a path": (lambda path: path / ("n/" * 3000), "does not exist|long"),
    "nothing": (lambda path: Path(""), "exists already|cannot write"),
}


@pytest.mark.parametrize("case", PLACES)
def test_where_no_bundle_can_be_is_told_before_torch_is_loaded(case, refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mmedge.export.build", None)  # so that its import fails
    place, message = PLACES[case]
    monkeypatch.chdir(tmp_path)
    error, _ = refused(output=place(tmp_path))
    assert re.search(message, error)


@pytest.mark.parametrize("place", ["", "inside", ".."])
def test_the_checkpoint_is_never_overwritten(place, captioner, refused, tmp_path):
    before = {path.name: path.read_bytes() for path in captioner.iterdir()}
    refused("--force", output=captioner / place)
    assert {path.name: path.read_bytes() for path in captioner.iterdir()} == before


# What is made


def test_a_model_is_named_after_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for model in (".", "./", str(tmp_path), f"{tmp_path}/", f"../{tmp_path.name}"):
        assert choose_recipe(model)[0].name == tmp_path.name
    assert choose_recipe("owner/name")[0].name == "name"
    assert choose_recipe("/")[0].name == "model"
    assert choose_recipe(os.fsdecode(b"/tmp/\xff"))[0].name == "\\xff"


def test_the_recipe_that_ships_for_a_model_is_taken():
    recipe, path = choose_recipe("builtin:scenes")
    assert recipe.name == "scenes" and recipe.calibration and path.name == "scenes.toml"


def test_without_a_model_it_is_the_recipes_own():
    assert choose_recipe(None, "scenes")[0].model == "builtin:scenes"
    with pytest.raises(UsageError, match="no model is named"):
        choose_recipe(None)


def test_options_replace_fields_of_the_recipe(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        'name = "r"\nmodel = "m"\nprecision = "int8"\n[accept]\ncosine = 0.9\nanswers = 0.5\n'
        '[calibration]\nfiles = "pictures"\nsamples = 9\nmethod = "entropy"\n'
        '[[component]]\nname = "encoder"\nprecision = "int8"\nkeep = ["a"]\n'
    )
    recipe, found = choose_recipe("other", path, target="jetson", calibration="mine")
    assert (recipe.model, recipe.target, found) == ("other", "jetson", path)
    assert recipe.calibration.files == str(Path("mine").resolve()) and recipe.calibration.method == "entropy"
    assert recipe.component and recipe.accept
    recipe, _ = choose_recipe("other", path, precision="float32")
    assert recipe.precision == "float32" and recipe.component == () and recipe.accept is None


def test_the_precisions_of_a_recipe_that_nobody_named_are_for_its_own_target():
    own, other = (choose_recipe("builtin:scenes", target=target)[0] for target in ("cpu", "jetson"))
    assert (own.precision, other.precision) == ("int8", None) and other.calibration == own.calibration
    assert choose_recipe("builtin:scenes", "scenes", target="jetson")[0].precision == "int8"
    assert choose_recipe("builtin:scenes", target="jetson", precision="int8")[0].precision == "int8"


def export_apart(checkpoint: Path, output: Path, *arguments: str, **environment: str) -> None:
    """Export in a process of its own."""
    command = [sys.executable, "-m", "mmedge", "export", str(checkpoint), "-o", str(output), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, cwd=output.parent, timeout=900
    )
    assert done.returncode == 0, done.stderr


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_an_export_made_twice_is_equal_to_the_last_byte(precision, captioner, tmp_path):
    """In processes with other hashes, another time zone and umask, from and to other folders."""
    recipe = tmp_path / "recipe.toml"
    # Weights are random, so that rounding soon leads to other words.
    recipe.write_text(
        f'name = "tiny"\nmodel = "x"\nprecision = "{precision}"\n[accept]\ncosine = 0.1\nanswers = 0.0\n'
        f'[calibration]\nfiles = "{draw(tmp_path / "pictures", 9)}"\n'
    )
    for number, (place, zone) in enumerate((("here", "UTC"), ("there/below", "Asia/Kolkata"))):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        shutil.copytree(captioner, folder / "checkpoint")
        before = os.umask(0o077 if number else 0o022)
        arguments = ("--recipe", str(recipe))
        export_apart(folder / "checkpoint", folder / "out", *arguments, PYTHONHASHSEED=str(number), TZ=zone)
        os.umask(before)
    first, second = (digests(tmp_path / place / "out") for place in ("here", "there/below"))
    assert first == second and len(first) > 10
    content = b"".join(path.read_bytes() for path in (tmp_path / "here/out").rglob("*") if path.is_file())
    assert str(tmp_path).encode() not in content and b"site-packages" not in content


@slow
def test_the_answers_travel_with_the_bundle_and_force_replaces_it(captioner, tmp_path, capfd):
    command = ["export", str(captioner), "-o", str(tmp_path / "out"), "--json"]
    assert cli.run(command) == 0
    report, bundle = json.loads(capfd.readouterr().out), open_bundle(tmp_path / "out")
    assert [stage["name"] for stage in report["stages"]] == [
        "plan", "load", "trace encoder", "trace decoder", "check", "agree", "pack",
    ]  # fmt: skip
    assert all(stage["seconds"] >= 0 and stage["peak_mb"] > 100 for stage in report["stages"])
    manifest = bundle.manifest
    assert manifest.answers.equal == manifest.answers.total == 8 and manifest.preprocess_max_abs <= 2 / 255
    assert {sample.task for sample in manifest.golden} == {"caption", "ask"}
    assert cli.run(command) == 2 and "--force" in json.loads(capfd.readouterr().out)["error"]["hint"]
    assert cli.run([*command, "--force"]) == 0 and open_bundle(tmp_path / "out").digest == bundle.digest


@slow
def test_a_weight_that_is_not_finite_is_exported_if_that_is_allowed(captioner, tmp_path, capfd):
    """At a place that no answer reaches: answers that are not finite never pass."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(captioner, tmp_path / "checkpoint")
    tensors = load_file(folder / "model.safetensors")
    tensors["text_decoder.bert.embeddings.position_embeddings.weight"][-1] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    command = ["export", str(folder), "-o", str(tmp_path / "out")]
    assert cli.run(command) == 4 and "--allow-nonfinite" in capfd.readouterr().err
    assert cli.run([*command, "--allow-nonfinite"]) == 0
    tensors["vision_model.post_layernorm.weight"][:] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    assert cli.run([*command, "--allow-nonfinite", "--force"]) == 7
    assert "torch gives values that are not finite" in capfd.readouterr().err


@slow
def test_names_of_any_characters_do_not_matter(captioner, tmp_path, capfd):
    odd = tmp_path / "My é e\u0301 \\ 'x' $(x)"
    checkpoint = odd / os.fsdecode(b"checkpoint \xff")
    pictures = draw(tmp_path / "p", 7)
    (pictures / "0.png").rename(pictures / os.fsdecode(b"\xfe\n.png"))
    shutil.copytree(captioner, checkpoint)
    arguments = ["-o", str(odd / "out"), "--calibration", str(pictures), "--json"]
    assert cli.run(["export", str(checkpoint), *arguments]) == 0
    assert json.loads(capfd.readouterr().out)["bundle"] == str(odd / "out")
    assert open_bundle(odd / "out").manifest.model == "checkpoint \\xff"


def test_a_path_that_engines_cannot_open_is_refused(captioner, tmp_path, capfd):
    folder = tmp_path / os.fsdecode(b"M\xffy")
    folder.mkdir()
    assert cli.run(["export", str(captioner), "-o", str(folder / "out")]) == 2
    assert "M\\xffy/out` is not UTF-8" in capfd.readouterr().err
    assert list(folder.iterdir()) == []


@slow
def test_pictures_that_cannot_be_read_are_refused_unless_they_may_be_skipped(captioner, tmp_path, capfd):
    pictures = draw(tmp_path / "pictures", 9)
    (pictures / "0.png").write_bytes(b"nonsense")
    recipe = tmp_path / "r.toml"
    recipe.write_text('name = "r"\nmodel = "x"\nprecision = "int8"\n[accept]\ncosine = 0.1\nanswers = 0.0\n')
    command = ["export", str(captioner), "-o", str(tmp_path / "out"), "--recipe", str(recipe)]
    command += ["--calibration", str(pictures)]
    assert cli.run(command) == 3 and "0.png" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.run([*command, "--skip-bad", "0.2"]) == 0
    assert "1 of 9 calibration samples were skipped" in capfd.readouterr().err
