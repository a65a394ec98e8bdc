"""Import every module of mmedge that runs on a device, in an interpreter that refuses what a device need not have.

A program of its own, so that nothing is imported already: run by test_boundaries.py and against the installed wheel.
"""

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path

REFUSED = {
    "torch": "mmedge.export",
    "transformers": "mmedge.export",
    "onnx": "mmedge.export",
    "onnx_ir": "mmedge.export",
    "onnxscript": "mmedge.export",
    "nncf": "mmedge.export",
    "safetensors": "mmedge.export",
    "huggingface_hub": "mmedge.export",
    "jinja2": "mmedge.export",
    "onnxruntime": "a function of mmedge.backends",
    "openvino": "a function of mmedge.backends",
    "tensorrt": "a function of mmedge.backends",
    "PIL": "a function of mmedge.media",
    "tokenizers": "a function of mmedge.media",
    "soundfile": "a function of mmedge.media",
    "soxr": "a function of mmedge.media",
}
"""Package to the place where it belongs."""


class Refusal(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        package = fullname.partition(".")[0]
        if package in REFUSED:
            raise ImportError(f"`{fullname}` is imported with the module; it belongs in {REFUSED[package]}")


def device_side(package: Path) -> Iterator[str]:
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[0] not in ("export", "calib", "recipes"):  # the last two are data in a wheel
            yield ".".join(("mmedge", *parts)).removesuffix(".__init__")


def main() -> None:
    sys.meta_path.insert(0, Refusal())
    import mmedge

    package = Path(mmedge.__file__).parent
    names = [*device_side(package)]
    for name in names:
        import_module(name)
    print(f"{len(names)} modules of {package}")


if __name__ == "__main__":
    main()
