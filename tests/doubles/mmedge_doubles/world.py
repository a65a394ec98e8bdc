"""What all objects of one double share."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

from mmedge_doubles.cudart import Cudart
from mmedge_doubles.settings import Settings


@dataclass
class World:
    """One TensorRT on one device."""

    settings: Settings
    cudart: Cudart
    module: ModuleType
    nested: dict[str, Any] = field(default_factory=dict)
    executions: list[int] = field(default_factory=list)
    """Index of the profile of every execution that was done."""

    def new(self, kind: str, /, **state: Any) -> Any:
        """An object that the library makes: its class has no constructor."""
        of = getattr(self.module, kind)
        made = of.__new__(of)
        made._state = SimpleNamespace(**state)
        return made

    def dims(self, sizes: Any) -> Any:
        """Sizes as TensorRT gives them."""
        return self.new("Dims", sizes=[int(size) for size in sizes])

    def check_device(self, logger: Any) -> None:
        """What the constructors of pybind11 say where there is no device."""
        if not self.settings.devices:
            self.say(logger, "CUDA initialization failure with error: 100. Please check your CUDA installation")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def say(self, logger: Any, text: str, severity: str = "ERROR") -> None:
        """As TensorRT logs."""
        logger.log(self.nested["Severity"][severity], text)

    def has(self, name: str, member: str) -> bool:
        return hasattr(getattr(self.module, name, None), member)
