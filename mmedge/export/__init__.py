"""From a torch checkpoint to a bundle; the only part of mmedge that needs torch.

``mmedge.export(...)`` is the function `mmedge.export.build.export`. Importing any module of this package binds the name
``mmedge.export`` to the package, whatever it meant before, so the package itself can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from mmedge.needs import needs


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        with needs("export"):
            from mmedge.export.build import export

        return export(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
