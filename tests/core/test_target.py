import pytest
from msgspec.structs import replace

from mmedge.core import find
from mmedge.core.recipe import PRECISIONS
from mmedge.errors import UsageError

TARGETS = find.targets()


def test_the_set_of_targets():
    assert [target.name for target in TARGETS] == [
        "cpu",
        "intel-npu",
        "jetson-agx-orin",
        "jetson-orin-nano-4gb",
        "jetson-orin-nano",
        "jetson-orin-nx",
        "jetson-thor",
        "raspberry-pi-5",
        "x86-64",
    ]


def test_no_name_or_alias_is_given_twice():
    names = [name for target in TARGETS for name in (target.name, *target.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
class TestEveryTarget:
    def test_is_named_as_its_file(self, target):
        assert (find.PACKAGE / "targets" / f"{target.name}.toml").is_file()

    def test_names_an_engine_for_each_role(self, target):
        assert target.backends.keys() == {"tower", "decode"}

    def test_takes_a_precision_by_itself_that_it_has(self, target):
        assert target.precision in (*target.precisions, *target.presets)

    def test_has_precisions_that_exist(self, target):
        assert set(target.precisions) <= set(PRECISIONS)

    def test_presets_use_its_own_precisions(self, target):
        for preset in target.presets.values():
            assert preset.keys() == {"tower", "decode"}
            assert set(preset.values()) <= set(target.precisions)

    def test_can_be_asked_for_int8(self, target):
        assert "int8" in target.presets

    def test_reads_an_operator_set_that_is_written(self, target):
        assert 17 <= target.opset <= 23

    def test_spells_activations_in_a_known_way(self, target):
        assert target.activations in ("uint8", "int8")
        # TensorRT refuses zero points other than 0.
        assert target.activations == "int8" or "tensorrt" not in target.backends.values()

    def test_fits_in_a_table_row(self, target):
        assert len(target.title) <= 24 and target.arch in ("any", "x86_64", "aarch64") and target.memory_mb >= 1024


BAD_OPTIONS = {
    "workspace_mb": ["abc", -5, 1.5, True, (1 << 24) + 1],
    "builder_mb": ["abc", -1, False],
    "builder_level": [77, 6, -1, "3", True],
    "cuda_graph": ["yes", 1],
    "device": [1, False],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_OPTIONS.items() for value in values])
def test_an_option_that_cannot_be_is_refused_with_its_name_and_bound(name, value, tmp_path):
    own = tmp_path / "own.toml"
    text = (find.PACKAGE / "targets/cpu.toml").read_text()
    own.write_text(f"{text}\n[options]\n{name} = {str(value).lower() if value in (True, False) else repr(value)}\n")
    with pytest.raises(UsageError, match=f"`{name}`" if value != 1.5 else "float") as refusal:
        find.target(str(own))
    assert value == 1.5 or f"is `{value}`, it must be " in refusal.value.message


@pytest.mark.parametrize(
    "options",
    [
        {"workspace_mb": 0, "builder_mb": 1 << 30, "builder_level": 0},
        {"builder_level": 5, "cuda_graph": False, "device": "NPU"},
        {"of another engine": "anything"},
    ],
)
def test_an_option_that_can_be_is_kept(options):
    assert replace(find.target("jetson"), options=options).options == options
