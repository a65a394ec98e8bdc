import json
import os
import pickle
import re
import resource
import runpy
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmedge import cli
from mmedge.errors import ModelError, ResourceError
from mmedge.export import weights
from mmedge.export.load import load_model, read_checkpoint

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def captioner(tiny_checkpoint, tmp_path_factory) -> Path:
    return tiny_checkpoint(0, tmp_path_factory.mktemp("captioner"))


@pytest.fixture
def folder(captioner, tmp_path) -> Path:
    return shutil.copytree(captioner, tmp_path / "checkpoint")


def edit(path: Path, change) -> None:
    """Let ``change`` edit the JSON object in a file; what it returns takes the object's place."""
    value = json.loads(path.read_text())
    path.write_text(json.dumps(change(value) or value))


def refusal(folder: Path, kind: type = ModelError):
    """The error that loading the checkpoint ends with: one line that names the checkpoint or its file."""
    with pytest.raises(kind) as caught:
        load_model(read_checkpoint(folder))
    assert str(folder) in caught.value.message and "\n" not in caught.value.message
    return caught.value


def test_a_checkpoint_is_read_as_transformers_reads_it(folder):
    from transformers import BlipForConditionalGeneration

    model, theirs = load_model(read_checkpoint(folder)), BlipForConditionalGeneration.from_pretrained(folder)
    ours = model.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.state_dict().items())
    assert model.generation_config.to_dict() == theirs.generation_config.to_dict() and not model.training


def test_weights_may_come_in_several_files_and_in_half_precision(folder):
    tensors = {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}
    (folder / WEIGHTS).unlink()
    names, files = sorted(tensors), ("one.safetensors", "two.safetensors")
    weight_map = {name: files[index % 2] for index, name in enumerate(names)}
    for file in files:
        save_file({name: tensors[name] for name in names if weight_map[name] == file}, folder / file)
    (folder / weights.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    model = load_model(read_checkpoint(folder))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    name = "vision_model.post_layernorm.weight"
    assert torch.equal(model.state_dict()[name], tensors[name].float())


# Code in files that should only hold data


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def write_zip(path: Path, payload: bytes) -> None:
    """As `torch.save` has written since 1.6."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")


PICKLES = [
    "pytorch_model.bin",
    "model.pt",
    "model.pth",
    "last.ckpt",
    "weights.pkl",
    "weights.pickle",
    "pytorch_model-00001-of-00002.bin",
    "model.safetensors",
    "other.safetensors",
]


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "zip"])
@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_is_refused_and_its_payload_does_not_run(name, zipped, folder, tmp_path):
    (folder / WEIGHTS).unlink()
    payload = pickle.dumps(Payload(tmp_path / "marker"))
    if zipped:
        write_zip(folder / name, payload)
    else:
        (folder / name).write_bytes(payload)
    error = refusal(folder)
    assert f"`{folder / name}` is" in error.message
    if name != "other.safetensors":
        assert "pickle file" in error.message and "save_pretrained" in error.hint
    assert not (tmp_path / "marker").exists()
    pickle.loads(payload)
    assert (tmp_path / "marker").exists(), "the payload works"


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_any_protocol_that_calls_itself_safetensors_does_not_run(protocol, folder, tmp_path):
    (folder / WEIGHTS).write_bytes(pickle.dumps(Payload(tmp_path / "marker"), protocol))
    refusal(folder)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("config", [{}, {"transformers_weights": "adapter_model.bin"}], ids=["beside", "named"])
def test_a_pickle_beside_safetensors_is_never_read(config, folder, tmp_path):
    payload = pickle.dumps(Payload(tmp_path / "marker"))
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "vocab.pkl", "optimizer.pt"):
        (folder / name).write_bytes(payload)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/name", "peft_type": "LORA"}')
    edit(folder / "config.json", lambda value: value.update(config))
    load_model(read_checkpoint(folder))
    assert not (tmp_path / "marker").exists()


CODE = {"AutoConfig": "own.Own", "AutoModelForImageTextToText": "own.Own", "AutoProcessor": "own.Own"}
REMOTE_CODE = {
    "config": ("config.json", lambda value: value.update(auto_map=CODE)),
    "text config": ("config.json", lambda value: value["text_config"].update(auto_map=CODE)),
    "vision config": ("config.json", lambda value: value["vision_config"].update(auto_map=CODE)),
    "trust in a nested config": ("config.json", lambda value: value["text_config"].update(trust_remote_code=True)),
    "deep in a list": ("config.json", lambda value: value.update(parts=[[{"x": {"auto_map": CODE}}]])),
    "elsewhere": ("config.json", lambda value: value.update(auto_map={"AutoConfig": "owner/name--own.Own"})),
    "tokenizer": ("tokenizer_config.json", lambda value: value.update(auto_map={"AutoTokenizer": ["own.Own", None]})),
    "processor": ("processor_config.json", lambda value: value.update(auto_map=CODE)),
    "picture processor": ("processor_config.json", lambda value: value["image_processor"].update(auto_map=CODE)),
    "older picture processor": ("preprocessor_config.json", lambda value: {"auto_map": CODE}),
    "generation": ("generation_config.json", lambda value: value.update(custom_generate="owner/name")),
    "any other file": ("anything.json", lambda value: [{"auto_map": CODE}]),
}


@pytest.mark.parametrize("case", REMOTE_CODE)
def test_a_checkpoint_with_code_of_its_own_is_refused_and_the_code_does_not_run(case, folder, tmp_path):
    code = f"from pathlib import Path\nPath({str(tmp_path / 'marker')!r}).touch()\nclass Own: pass\n"
    (folder / "own.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    name, change = REMOTE_CODE[case]
    if not (folder / name).exists():
        (folder / name).write_text("{}")
    edit(folder / name, change)
    error = refusal(folder)
    assert f"`{folder / name}` asks for code of its own" in error.message and "no remote code" in error.hint
    assert not (tmp_path / "marker").exists()
    runpy.run_path(str(folder / "own.py"))
    assert (tmp_path / "marker").exists(), "the code works"


def test_code_that_nothing_asks_for_does_not_run(folder, tmp_path):
    code = f"open({str(tmp_path / 'marker')!r}, 'w')"
    for name in ("modeling_blip.py", "__init__.py", "custom_generate/generate.py", "handler.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    load_model(read_checkpoint(folder))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "use_kernels"])
def test_native_code_of_the_hub_is_not_asked_for(key, folder, monkeypatch):
    """Were it asked for, the missing network would make it fail."""
    for part in ("text_config", "vision_config", None):
        edit(
            folder / "config.json",
            lambda value, part=part: (value[part] if part else value).update({key: "owner/attention"}),
        )
    model = load_model(read_checkpoint(folder))
    assert model.config._attn_implementation != "owner/attention"
    assert model.config.text_config._attn_implementation != "owner/attention"


# Damaged weights


def unpack(path: Path) -> tuple[dict, bytes]:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def pack(header: dict | list | bytes, data: bytes, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entries(header: dict) -> list[dict]:
    """Descriptions of the tensors in the order of their data."""
    return sorted((entry for name, entry in header.items() if name[0] != "_"), key=lambda entry: entry["data_offsets"])


def edited(change):
    def damage(path: Path) -> None:
        header, data = unpack(path)
        change(header)
        path.write_bytes(pack(header, data))

    return damage


def raw(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def overlap(header):
    first, second = entries(header)[:2]
    second["data_offsets"] = [
        first["data_offsets"][0],
        first["data_offsets"][0] + np.diff(second["data_offsets"])[0].item(),
    ]


def hole(header):
    last = entries(header)[-1]
    last["data_offsets"] = [offset + 4 for offset in last["data_offsets"]]


def set_first(**fields):
    return edited(lambda header: entries(header)[0].update(fields))


def repeat_a_key(path):
    header, data = unpack(path)
    text = json.dumps(header)
    name, entry = next((name, entry) for name, entry in header.items() if name[0] != "_")
    path.write_bytes(pack(f'{text[:-1]}, "{name}": {json.dumps(entry)}}}'.encode(), data))


def many_tensors(path):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path.write_bytes(pack({f"t{number}": entry for number in range(100_000)}, b""))


def replace(path, name, tensor):
    tensors = load_file(path)
    save_file({**tensors, name: tensor}, path)


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_fifo(path):
    path.unlink()
    os.mkfifo(path)


NAME = "vision_model.post_layernorm.weight"
DAMAGE = {
    "empty": (raw(lambda content: b""), "is damaged: its header would be 0 bytes long"),
    "seven bytes": (raw(lambda content: content[:7]), "is damaged"),
    "garbage": (raw(lambda content: np.random.default_rng(0).bytes(10_000)), "is damaged"),
    "text": (raw(lambda content: b"version https://git-lfs.github.com/spec/v1\n"), "is damaged: its header would be"),
    "zeros": (raw(lambda content: bytes(len(content))), "is damaged: its header would be 0 bytes long"),
    "header of 2^63 bytes": (raw(lambda content: struct.pack("<Q", 1 << 63) + content[8:]), "9223372036854775808"),
    "header of 2^64 - 1 bytes": (raw(lambda content: b"\xff" * 8 + content[8:]), "18446744073709551615 bytes"),
    "header longer than the file": (raw(lambda content: struct.pack("<Q", len(content)) + content[8:]), "is damaged"),
    "header cut": (raw(lambda content: content[:100]), "is damaged: its header would be"),
    "one byte missing": (raw(lambda content: content[:-1]), "is damaged"),
    "half missing": (raw(lambda content: content[: len(content) // 2]), "is damaged"),
    "one byte too many": (raw(lambda content: content + b"\0"), "is damaged"),
    "overlap": (edited(overlap), "is damaged"),
    "hole": (edited(hole), "is damaged"),
    "beyond the file": (set_first(data_offsets=[0, 1 << 40]), "is damaged"),
    "backwards": (set_first(data_offsets=[8, 4]), "is damaged"),
    "negative offset": (set_first(data_offsets=[-8, 4]), "is damaged"),
    "shape larger than its bytes": (set_first(shape=[1 << 20]), "is damaged"),
    "shape that overflows": (set_first(shape=[1 << 40, 1 << 40]), "is damaged"),
    "negative shape": (set_first(shape=[-1]), "is damaged"),
    "half the bytes of its type": (set_first(dtype="F64"), "is damaged"),
    "type unknown": (set_first(dtype="F99"), "is of type F99, expected F64, F32"),
    "duplicate key": (repeat_a_key, "appears twice"),
    "header no JSON": (lambda path: path.write_bytes(pack(b"{nonsense}", b"")), "header cannot be read"),
    "header a list": (lambda path: path.write_bytes(pack([1], b"")), "does not describe tensors"),
    "header of numbers": (lambda path: path.write_bytes(pack({"a": 1}, b"")), "does not describe tensors"),
    "header too deep": (lambda path: path.write_bytes(pack(b'{"a":' * 5000 + b"}" * 5000, b"")), "5000 levels deep"),
    "header not UTF-8": (lambda path: path.write_bytes(pack(b'{"\xff": {}}', b"")), "header cannot be read"),
    "100,000 tensors": (many_tensors, "has 100000 tensors, at most 50000 are read"),
    "NaN": (lambda path: replace(path, NAME, torch.full((32,), torch.nan)), f"`{NAME}` in .* not finite"),
    "infinity": (lambda path: replace(path, NAME, torch.full((32,), -torch.inf)), f"`{NAME}` in .* not finite"),
    "wrong shape": (lambda path: replace(path, NAME, torch.ones(31)), f"in another shape, the first is `{NAME}`"),
    "extra tensor": (lambda path: replace(path, "layer.9.weight", torch.ones(3)), "no place for, the first is `layer"),
    "whole numbers": (lambda path: replace(path, NAME, torch.ones(32, dtype=torch.int8)), f"`{NAME}`.* is of type I8"),
    "other names": (edited(lambda header: header.update(x=header.pop(NAME))), f"lacks 1 of .* is `{NAME}`"),
    "no tensors": (lambda path: path.write_bytes(pack({}, b"")), "lacks 9"),
    "a folder": (make_folder, "is no file"),
    "a pipe": (make_fifo, "is no file"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_weights_are_refused_by_name(case, folder):
    damage, message = DAMAGE[case]
    damage(folder / WEIGHTS)
    assert re.search(message, refusal(folder).message)


def test_weights_that_are_not_finite_are_taken_if_that_is_allowed(folder):
    replace(folder / WEIGHTS, NAME, torch.full((32,), torch.nan))
    model = load_model(read_checkpoint(folder), allow_nonfinite=True)
    assert model.vision_model.post_layernorm.weight.isnan().all()


INDEXES = {
    "garbage": ("{", "lists no files"),
    "a list": ("[]", "lists no files"),
    "no map": ("{}", "lists no files"),
    "a map of lists": ('{"weight_map": {"a": ["b"]}}', "lists no files"),
    "a missing file": ('{"weight_map": {"a": "b.safetensors"}}', "b.safetensors` is missing"),
    "a file elsewhere": (
        '{"weight_map": {"a": "../b.safetensors"}}',
        "names `../b.safetensors`, which is no safetensors",
    ),
    "an absolute path": ('{"weight_map": {"a": "/tmp/b.safetensors"}}', "names `/tmp/b.safetensors`"),
    "a pickle": ('{"weight_map": {"a": "pytorch_model.bin"}}', "names `pytorch_model.bin`, which is no safetensors"),
    "a number": ('{"weight_map": {"a": 1}}', "names `1`"),
    "half of the tensors": ('{"weight_map": {"a": "one.safetensors"}}', "lacks [0-9]+ of the model's tensors"),
    "a tensor in two files": (
        '{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}',
        "two.safetensors` has the tensor `vision_.*`, which another file has too",
    ),
}


@pytest.mark.parametrize("case", INDEXES)
def test_an_index_of_files_that_cannot_be_followed_is_refused(case, folder):
    content, message = INDEXES[case]
    (folder / WEIGHTS).unlink()
    some = {NAME: torch.ones(32), "vision_model.post_layernorm.bias": torch.ones(32)}
    save_file(some, folder / "one.safetensors")
    save_file(some, folder / "two.safetensors")
    (folder / weights.INDEX).write_text(content)
    assert re.search(message, refusal(folder).message)


def test_without_weights_a_checkpoint_can_be_planned_but_not_loaded(folder):
    (folder / WEIGHTS).unlink()
    checkpoint = read_checkpoint(folder)
    assert checkpoint.weights_bytes == 0
    assert sum(parameter.numel() for parameter in checkpoint.outline.parameters()) > 10_000
    with pytest.raises(ModelError, match="has no weights"):
        load_model(checkpoint)


# Configurations


CONFIGS = {
    "empty": (lambda path: path.write_bytes(b""), "cannot read"),
    "no JSON": (lambda path: path.write_text("{nonsense"), "cannot read"),
    "not UTF-8": (lambda path: path.write_bytes(b'{"a": "\xff\xfe\x00"}'), "cannot read"),
    "a list": (lambda path: path.write_text("[]"), "is not a JSON object"),
    "a number": (lambda path: path.write_text("7"), "is not a JSON object"),
    "deeply nested": (lambda path: path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000), "cannot read"),
    "a number of 10,000 digits": (lambda path: path.write_text('{"a": ' + "9" * 10_000 + "}"), "cannot read"),
    "missing": (Path.unlink, "has no config.json"),
    "a folder": (make_folder, "has no config.json"),
    "a pipe": (make_fifo, "has no config.json"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_is_none_is_refused(case, folder):
    damage, message = CONFIGS[case]
    damage(folder / "config.json")
    assert message in refusal(folder).message


VALUES = {
    "type unknown": (lambda value: value.update(model_type="mllama"), "of type `mllama`, which mmedge does not know"),
    "type almost known": (lambda value: value.update(model_type="blip-2"), "model of type `blip-2`"),
    "type missing": (lambda value: value.pop("model_type") and None, "model of type `None`"),
    "type a list": (lambda value: value.update(model_type=["blip"]), "model of type"),
    "architecture unknown": (lambda value: value.update(architectures=["BlipModel"]), "does not export"),
    "architecture a command": (lambda value: value.update(architectures=["__import__('os')"]), "does not export"),
    "architectures empty": (lambda value: value.update(architectures=[]), "is a `None`"),
    "architectures missing": (lambda value: value.pop("architectures") and None, "is a `None`"),
    "quantized": (lambda value: value.update(quantization_config={"quant_method": "gptq"}), "is quantized already"),
    "text config a list": (lambda value: value.update(text_config=[1]), "is not valid|describes no model"),
    "size a text": (lambda value: value["text_config"].update(hidden_size="32"), "is not valid|describes no model"),
    "size negative": (lambda value: value["text_config"].update(hidden_size=-32), "is not valid|describes no model"),
    "size zero": (lambda value: value["text_config"].update(hidden_size=0), "is not valid|describes no model"),
    "size a fraction": (lambda value: value["text_config"].update(hidden_size=32.5), "is not valid|describes no model"),
    "no heads": (lambda value: value["text_config"].update(num_attention_heads=0), "is not valid|describes no model"),
    "heads that do not fit": (lambda value: value["text_config"].update(num_attention_heads=7), "describes no model"),
    "patch of nothing": (lambda value: value["vision_config"].update(patch_size=0), "describes no model"),
    "picture of nothing": (lambda value: value["vision_config"].update(image_size=0), "in another shape"),
    "activation unknown": (lambda value: value["text_config"].update(hidden_act="rm -rf"), "describes no model"),
    "another model's sizes": (lambda value: value["text_config"].update(intermediate_size=65), "in another shape"),
    "a layer fewer": (lambda value: value["text_config"].update(num_hidden_layers=1), "no place for"),
    "a layer more": (lambda value: value["text_config"].update(num_hidden_layers=3), "lacks [0-9]+ of the model"),
}  # fmt: skip


@pytest.mark.parametrize("case", VALUES)
def test_a_configuration_of_something_else_is_refused(case, folder):
    change, message = VALUES[case]
    edit(folder / "config.json", change)
    assert re.search(message, refusal(folder).message)


ABSURD = {
    "text width": ("text_config", "hidden_size", 10**9),
    "text width beyond counting": ("text_config", "hidden_size", 10**12),
    "inner width": ("text_config", "intermediate_size", 10**12),
    "text layers": ("text_config", "num_hidden_layers", 10**9),
    "vision layers": ("vision_config", "num_hidden_layers", 10**9),
    "vocabulary": ("text_config", "vocab_size", 10**12),
    "positions": ("text_config", "max_position_embeddings", 10**12),
    "picture": ("vision_config", "image_size", 10**8),
    "patch": ("vision_config", "patch_size", 10**7),
}


@pytest.mark.parametrize("case", ABSURD)
def test_absurd_sizes_are_refused_before_memory_is_taken(case, folder):
    part, key, value = ABSURD[case]
    edit(folder / "config.json", lambda config: config[part].update({key: value}))
    before = peak_mb()
    error = refusal(folder, ResourceError)
    assert re.search(
        "of [0-9.e+]+ weights, .* GiB in float32; this machine has|more than 10000|too large", error.message
    )
    assert peak_mb() - before < 200


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


PROCESSORS = {
    "no tokenizer": lambda folder: [path.unlink() for path in folder.glob("tokenizer*")],
    "no processor": lambda folder: (folder / "processor_config.json").unlink(),
    "tokenizer no JSON": lambda folder: (folder / "tokenizer.json").write_text("{"),
    "tokenizer of nothing": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "tokenizer of an unknown kind": lambda folder: (folder / "tokenizer.json").write_text('{"model": {"type": "Own"}}'),
    "tokenizer config a list": lambda folder: (folder / "tokenizer_config.json").write_text("[]"),
    "processor no JSON": lambda folder: (folder / "processor_config.json").write_text("{"),
    "processor a list": lambda folder: (folder / "processor_config.json").write_text("[]"),
    "processor of an unknown class": lambda folder: edit(
        folder / "processor_config.json", lambda value: value.update(processor_class="OwnProcessor")
    ),
    "picture processor of an unknown class": lambda folder: edit(
        folder / "processor_config.json", lambda value: value["image_processor"].update(image_processor_type="Own")
    ),
    "picture processor a list": lambda folder: edit(
        folder / "processor_config.json", lambda value: value.update(image_processor=[1])
    ),
    "generation no JSON": lambda folder: (folder / "generation_config.json").write_text("{"),
    "generation a list": lambda folder: (folder / "generation_config.json").write_text("[]"),
}


@pytest.mark.parametrize("case", PROCESSORS)
def test_a_checkpoint_whose_other_files_are_damaged_is_refused(case, folder):
    PROCESSORS[case](folder)
    refusal(folder)


# On the command line


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"), 4),
        (lambda folder: edit(folder / "config.json", lambda value: value.update(auto_map=CODE)), 4),
        (lambda folder: DAMAGE["half missing"][0](folder / WEIGHTS), 4),
        (lambda folder: DAMAGE["NaN"][0](folder / WEIGHTS), 4),
        (lambda folder: edit(folder / "config.json", lambda value: value["text_config"].update(hidden_size=10**9)), 6),
    ],
    ids=["pickle", "remote code", "damaged", "not finite", "absurd"],
)
def test_an_export_ends_with_one_line_and_leaves_nothing(damage, code, folder, capfd):
    damage(folder)
    before = sorted(folder.parent.rglob("*"))
    assert cli.run(["export", str(folder), "-o", str(folder.parent / "bundle")]) == code
    shown = capfd.readouterr()
    lines = [line for line in shown.err.splitlines() if line and not re.match(r"(plan|load) .* MB| {20}", line)]
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"] and shown.out == ""
    assert sorted(folder.parent.rglob("*")) == before
