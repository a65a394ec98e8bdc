"""Turn a missing optional package into a hint that names the extra which brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mmedge.errors import BackendError


@contextmanager
def needs(extra: str, hint: str | None = None) -> Iterator[None]:
    """Wrap the import of an optional package: ``with needs("openvino"): import openvino``.

    ``hint`` is for packages that no extra brings.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == "mmedge":
            raise
        raise BackendError(
            f"the package `{missing.name}` is not installed",
            hint=hint or f'pip install "mmedge[{extra}]"',
        ) from missing
