#!/usr/bin/env bash
# Installs mmedge beside this file on a Jetson, and makes the bundle ready for it; it may be run again at any time.
#   ./install.sh [--no-compile]
# It takes packages from the folder `wheels` if there are any, and then needs no network.
# PYTHON is the interpreter (the system's own, which the module `tensorrt` of JetPack is for), VENV where to install.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"

python=${PYTHON:-/usr/bin/python3}
venv=${VENV:-$PWD/venv}
fail() { echo "install.sh: $*" >&2; exit 1; }

compile=yes
case ${1:-} in
    "") ;;
    --no-compile) compile=no ;;
    *) fail "it takes --no-compile or nothing, not '$1'" ;;
esac

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "there is no Python at $python"
requirements=requirements-$version.txt
[ -f "$requirements" ] || fail "there is nothing here for Python $version, only: $(echo requirements-*.txt)"

echo "== Python $version at $python, into $venv"
"$python" -m venv --system-site-packages "$venv" || fail "first: sudo apt install python3-venv"

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

# Another build of ONNX Runtime fills the same folder as this one, which would spoil it.
other=$("$venv/bin/python" - <<'PROGRAM'
from importlib.metadata import packages_distributions

print(*sorted({*packages_distributions().get("onnxruntime", ())} - {"onnxruntime"}))
PROGRAM
)
wanted() {
    if [ -n "$other" ]; then grep --invert-match '^onnxruntime==' "$requirements"; else cat "$requirements"; fi
}

if compgen -G "wheels/*.whl" >/dev/null; then
    wanted | pip install --quiet --no-index --find-links wheels -r /dev/stdin \
        || fail "the folder wheels lacks something for Python $version; README.txt says how to fill it"
else
    echo "there are no wheels here: taking them from the network"
    wanted | pip install --quiet -r /dev/stdin
fi
# By its file: no index can offer another one. Again and again: a newer archive may bring the same version.
pip install --quiet --no-index --no-deps --force-reinstall ./mmedge-*.whl

echo "== ONNX Runtime, which runs what TensorRT does not"
if [ -n "$other" ]; then
    echo "There is $other already, and it stays."
else
    cat <<CHOICES
There are three for a Jetson; the first is installed now. Only one can be, so remove it before you install another:
       $venv/bin/python -m pip uninstall --yes onnxruntime
  1. For the CPU. It works everywhere.
  2. For the GPU with JetPack 6, from the index of the Jetson AI Lab:
       $venv/bin/python -m pip install --index-url https://pypi.jetson-ai-lab.io/jp6/cu126/+simple/ onnxruntime-gpu
  3. For the GPU with JetPack 7, built by its users: take the wheel for your JetPack from
     https://github.com/Shattered217/Jetson-Orin-Wheels/releases and, in the folder where it is:
       $venv/bin/python -m pip install ./onnxruntime_gpu-*.whl
CHOICES
fi
echo "Never 'pip install onnxruntime-gpu' from the usual index: it has no kernels for the GPU of a Jetson."

echo "== what is here"
"$venv/bin/mmedge" doctor

if [ "$compile" = yes ]; then
    echo "== making the bundle ready"
    if ! "$venv/bin/mmedge" compile model.bundle; then
        echo "== installed, but the bundle is not ready for the engine it was made for: see above" >&2
        exit 5
    fi
    echo "== done; try: $venv/bin/mmedge caption $PWD/model.bundle PICTURE"
fi
