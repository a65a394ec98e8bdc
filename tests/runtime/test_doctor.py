"""Machines made of files, looked at by interpreters made up for them."""

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from mmedge.commands.doctor import lines
from mmedge.runtime.device import Device
from mmedge.runtime.doctor import diagnose
from mmedge.runtime.interpreter import EngineState, Interpreter, engine_state, infer_version, this_interpreter

_spec = spec_from_file_location("boards", Path(__file__).with_name("boards.py"))
boards = module_from_spec(_spec)
_spec.loader.exec_module(boards)

READY = (
    EngineState("onnxruntime", "1.23.2", {}, "", ""),
    EngineState("onnxruntime_gpu", "1.23.0 (CUDA)", {}, "", ""),
    EngineState("tensorrt", "10.3.0", {"compute_capability": "8.7", "l4t": "36.4.3"}, "", ""),
)
PYTHON = Interpreter(
    version="3.10.12",
    executable="/home/me/mmedge/bin/python",
    prefix="/home/me/mmedge",
    virtual=True,
    sees_system=True,
    packages={"mmedge": "0.1.0", "numpy": "2.2.6", "onnxruntime": "1.23.2"},
    engines=READY,
    libnvinfer="10.3.0",
    trtexec="",
    free_disk_mb=60_000,
)
DEVICE = Device("board", "aarch64", 6, 7620, "")


TOLD_BY_THE_HOST = {"etc/nv_tegra_release", "etc/nvpmodel.conf", "proc/device-tree/model"}


def without(*names: str, interpreter: Interpreter = PYTHON, problem: str = "it is not installed") -> Interpreter:
    """The engines ``names`` cannot be used, and no TensorRT library is found by loading it."""
    engines = tuple(
        EngineState(engine.name, "", {}, problem, "") if engine.name in names else engine
        for engine in interpreter.engines
    )
    return replace(interpreter, engines=engines, libnvinfer="")


@pytest.fixture
def look(tmp_path):
    def at(files: dict[str, str], interpreter: Interpreter = PYTHON, said: str = ""):
        root = boards.write(files, tmp_path / "root")
        return diagnose(root, lambda command: said, interpreter, DEVICE)

    return at


def advised(found) -> dict[str, tuple[str, ...]]:
    return {each.what: each.todo for each in found.advice}


def commands(found) -> list[str]:
    return [command for each in found.advice for command in each.todo]


def test_an_orin_nano_with_jetpack_6_2_is_read(look):
    found = look(boards.ORIN_NANO)
    assert (found.board.jetpack, found.board.l4t, found.board.power_mode) == ("6.2", "36.4.3", "25W")
    assert (found.cuda, found.tensorrt.library, found.tensorrt.modules) == ("12.6.11", "10.3.0", ("3.10",))
    assert found.tensorrt.trtexec == "/usr/src/tensorrt/bin/trtexec"
    assert (found.free_memory_mb, found.swap_mb) == (5100, 3810)
    assert commands(found) == ["sudo nvpmodel -m 2", "sudo jetson_clocks"]


def test_what_nvpmodel_says_goes_before_its_status_file(look):
    assert look(boards.ORIN_NANO, said="NV Power Mode: MAXN_SUPER\n2\n").board.power_mode == "MAXN_SUPER"


def test_an_orin_with_jetpack_7_2_is_read(look):
    found = look(boards.ORIN_7_2, replace(PYTHON, version="3.12.3", libnvinfer=""))
    assert (found.board.jetpack, found.board.power_mode) == ("7.2", "MAXN")
    assert (found.tensorrt.library, found.tensorrt.modules) == ("10.16.2", ("3.12",))
    assert commands(found) == ["sudo apt install libnvinfer-bin"]
    assert any("84 °C hot" in what for what in advised(found))


def test_a_thor_without_tensorrt_is_told_to_install_jetpack(look):
    found = look(boards.THOR_7_1, without("tensorrt", "onnxruntime_gpu"))
    assert (found.board.jetpack, found.tensorrt.library) == ("7.1", "")
    assert commands(found)[:2] == ["sudo apt update", "sudo apt install nvidia-jetpack"]


@pytest.mark.parametrize("name", ["RASPBERRY_PI", "PC"])
def test_elsewhere_nothing_of_a_jetson_is_missed(name, look):
    found = look(getattr(boards, name), without("tensorrt", "onnxruntime_gpu"))
    assert found.advice == () and found.can_run and not found.board.l4t
    assert not [line for line in lines(found) if "TensorRT" in line or "power mode" in line]


def test_a_raspberry_pi_is_named_with_clocks_and_temperature(look):
    shown = "\n".join(lines(look(boards.RASPBERRY_PI)))
    assert "Raspberry Pi 5 Model B Rev 1.0" in shown and "cpu0 1,500 MHz" in shown and "51.2 °C" in shown


def test_a_library_without_its_module_needs_one_package(look):
    files = {name: text for name, text in boards.ORIN_NANO.items() if "dist-packages" not in name}
    assert "sudo apt install python3-libnvinfer" in commands(look(files, without("tensorrt")))


def test_another_python_than_the_systems_gets_an_environment_of_the_right_one(look):
    found = look(boards.ORIN_NANO, replace(without("tensorrt"), version="3.12.1"))
    what = "the module `tensorrt` is for Python 3.10, this is Python 3.12"
    (todo,) = (todo for told, todo in advised(found).items() if told.startswith(what))
    assert todo[0] == 'PYTHON=/usr/bin/python3.10 VENV="$HOME/mmedge" ./install.sh'


def test_an_environment_that_does_not_see_the_system_is_opened(look):
    found = look(boards.ORIN_NANO, replace(without("tensorrt"), sees_system=False))
    assert "/usr/bin/python3.10 -m venv --system-site-packages /home/me/mmedge" in commands(found)


def test_a_module_that_cannot_be_loaded_is_told_with_the_reason(look):
    found = look(boards.ORIN_NANO, without("tensorrt", problem="libcudart.so.12: cannot open shared object file"))
    assert any("but: libcudart.so.12" in what for what in advised(found))


def test_a_gpu_that_the_user_may_not_use_is_told_apart(look):
    found = look(boards.ORIN_NANO, replace(PYTHON, engines=(replace(READY[2], problem="CUDA cannot find a device"),)))
    assert commands(found)[0] == "sudo usermod --append --groups video $USER"
    assert not found.can_run and not any("python3-libnvinfer" in command for command in commands(found))


def test_the_wheel_of_the_index_is_to_be_removed_and_why(look):
    trapped = replace(without("onnxruntime_gpu"), packages={"onnxruntime-gpu": "1.31.1"}, libnvinfer="10.3.0")
    found = look(boards.ORIN_NANO, trapped)
    (what,) = [what for what in advised(found) if "onnxruntime-gpu" in what]
    assert "has no kernels for the GPU of a Jetson, and must not be used" in what
    assert advised(found)[what] == (
        "/home/me/mmedge/bin/python -m pip uninstall --yes onnxruntime-gpu",
        "/home/me/mmedge/bin/python -m pip install "
        "--index-url https://pypi.jetson-ai-lab.io/jp6/cu126/+simple/ onnxruntime-gpu",
    )


def test_the_build_for_the_cpu_goes_before_the_one_with_the_gpu_comes(look):
    first, second = commands(look(boards.ORIN_NANO, without("onnxruntime_gpu")))[:2]
    assert first == "/home/me/mmedge/bin/python -m pip uninstall --yes onnxruntime" and "--index-url" in second


def test_a_wheel_to_be_downloaded_is_told_in_words_and_installed_by_its_file(look):
    found = look(boards.ORIN_7_2, without("onnxruntime_gpu"))
    (what,) = [what for what in advised(found) if "onnxruntime-gpu" in what]
    assert "from https://github.com/Shattered217/Jetson-Orin-Wheels/releases and, in the folder" in what
    assert advised(found)[what][-1] == "/home/me/mmedge/bin/python -m pip install ./onnxruntime_gpu-*.whl"


@pytest.mark.parametrize("name", ["ORIN_NANO", "ORIN_7_2", "THOR_7_1", "PC"])
@pytest.mark.parametrize("lacking", [("onnxruntime_gpu",), ("onnxruntime", "onnxruntime_gpu", "tensorrt")])
@pytest.mark.parametrize("packages", [{}, {"onnxruntime": "1.23.2"}, {"onnxruntime-gpu": "1.31.1"}])
def test_every_command_is_one_and_at_most_one_build_of_onnxruntime_is_installed(name, lacking, packages, look):
    found = look(getattr(boards, name), replace(without(*lacking), packages=packages, executable="/my env/bin/python"))
    for command in commands(found):
        subprocess.run(["bash", "-n", "-c", command], check=True)
        assert "<" not in command.replace('"onnxruntime>=1.23.2,<2"', "") and "mmedge[" not in command
        assert " -m pip " not in command or command.startswith("'/my env/bin/python' -m pip ")
    assert sum("pip install" in command for command in commands(found)) <= 1


def test_the_advised_onnxruntime_is_the_one_that_mmedge_asks_for(look):
    found = look(boards.PC, without("onnxruntime", "onnxruntime_gpu", "tensorrt"))
    project = msgspec.toml.decode((Path(__file__).parents[2] / "pyproject.toml").read_bytes())["project"]
    (asked,) = project["optional-dependencies"]["onnxruntime"]
    assert commands(found)[-1] == f'/home/me/mmedge/bin/python -m pip install "{asked}"'


def test_in_a_container_a_jetson_is_known_and_what_it_lacks_is_told(look):
    files = {name: text for name, text in boards.ORIN_NANO.items() if name not in TOLD_BY_THE_HOST}
    found = look(files | {"sys/devices/soc0/family": "Tegra"}, without("tensorrt"))
    assert found.board.jetson and not found.board.l4t
    assert any("--volume /etc/nv_tegra_release:/etc/nv_tegra_release:ro" in what for what in advised(found))
    assert any("the module `tensorrt` is here, but" in what for what in advised(found))
    assert "Jetson Linux (L4T) not told" in "\n".join(lines(found))


def test_no_command_installs_the_gpu_wheel_of_the_index_on_a_jetson(look):
    for name in ("ORIN_NANO", "ORIN_7_2", "THOR_7_1"):
        found = look(getattr(boards, name), without("onnxruntime", "onnxruntime_gpu", "tensorrt"))
        for command in commands(found):
            assert "onnxruntime-gpu" not in command or "--index-url" in command or "uninstall" in command


def test_where_no_engine_can_be_used_nothing_can_run(look):
    found = look(boards.ORIN_NANO, without("onnxruntime", "onnxruntime_gpu", "tensorrt"))
    assert not found.can_run
    assert '/home/me/mmedge/bin/python -m pip install "onnxruntime>=1.23.2,<2"' in "\n".join(commands(found))


def test_an_old_jetpack_is_told(look):
    files = boards.ORIN_NANO | {"etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 1"}
    assert any("JetPack 5.1.2 has an older Python" in what for what in advised(look(files)))


def test_little_memory_and_disk_are_told(look):
    files = boards.ORIN_NANO | {"proc/meminfo": "MemTotal: 7802880 kB\nMemAvailable: 512000 kB\n"}
    found = look(files, replace(PYTHON, free_disk_mb=100))
    assert "sudo systemctl isolate multi-user.target" in commands(found)
    assert any("only 100 MiB of this disk" in what for what in advised(found))


@pytest.mark.parametrize("name", ["ORIN_NANO", "ORIN_7_2", "THOR_7_1", "RASPBERRY_PI", "PC"])
@pytest.mark.parametrize("broken", [True, False])
def test_everything_is_shown_in_80_columns(name, broken, look):
    interpreter = (
        without("onnxruntime", "onnxruntime_gpu", "tensorrt", problem="a long story " * 20) if broken else PYTHON
    )
    shown = [*lines(look(getattr(boards, name), interpreter))]
    assert max(map(len, shown)) < 80


def test_a_long_command_can_be_copied(look):
    shown = "\n".join(lines(look(boards.ORIN_NANO, without("onnxruntime_gpu"))))
    (place,) = re.findall(r"     /home/me/mmedge/bin/python -m pip install.*\n.*onnxruntime-gpu", shown)
    assert place.splitlines()[0].endswith(" \\")
    whole = "/home/me/mmedge/bin/python -m pip install --index-url https://pypi.jetson-ai-lab.io/jp6/cu126/+simple/"
    assert place.replace(" \\\n", "").split() == [*whole.split(), "onnxruntime-gpu"]


@pytest.mark.parametrize(
    ("number", "version"), [(8602, "8.6.2"), (100300, "10.3.0"), (101303, "10.13.3"), (110400, "11.4.0")]
)
def test_the_number_of_the_library_is_read(number, version):
    assert infer_version(number) == version


def test_this_interpreter_knows_its_packages_and_engines():
    found = this_interpreter()
    assert found.packages["numpy"] and found.executable == sys.executable
    assert engine_state("onnxruntime") in found.engines
    assert msgspec.json.encode(found)


@pytest.mark.slow
def test_the_packages_of_the_system_are_seen_where_the_environment_says_so(tmp_path):
    for option in ([], ["--system-site-packages"]):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", *option, tmp_path], check=True)
        program = "import sys; sys.path.extend(sys.argv[1:]); from mmedge.runtime.interpreter import _sees_system; "
        program += "from pathlib import Path; print(_sees_system(Path(sys.prefix)))"
        paths = [path for path in sys.path if path]
        done = subprocess.run(
            [tmp_path / "bin/python", "-c", program, *paths], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(bool(option))
