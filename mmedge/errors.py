"""Every error a user can meet: one line that says what is wrong, a hint to act on, and a stable exit code."""

from __future__ import annotations


class MmedgeError(Exception):
    """What is wrong, with the value and the bound; ``hint`` is something to do. Lower case, no full stop.

    The exit codes are a promise: scripts on devices depend on them.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MmedgeError):
    """The command, an option, a recipe or a path does not say something that can be done."""

    exit_code = 2


class PlanError(UsageError):
    """The recipe asks for something the model or the target cannot do; found before any work starts."""


class InputError(MmedgeError):
    """A picture, a text, a tensor or a calibration sample that cannot be used."""

    exit_code = 3


class ContextError(InputError):
    """More than the model can read at once."""


class ModelError(MmedgeError):
    """A checkpoint that is damaged, unsupported or not to be trusted."""

    exit_code = 4


class BundleError(MmedgeError):
    """A bundle that is damaged, incomplete or not to be trusted."""

    exit_code = 4


class BackendError(MmedgeError):
    """An engine that is missing, too old, or cannot run the graph."""

    exit_code = 5


class ResourceError(MmedgeError):
    """Not enough disk, memory or time, or a file system that refuses."""

    exit_code = 6


class QualityError(MmedgeError):
    """A graph or its answers disagree with the reference by more than the bound."""

    exit_code = 7


class BusyError(MmedgeError):
    """Another process is writing the same bundle."""

    exit_code = 10


class DownloadError(MmedgeError):
    """A checkpoint could not be fetched."""

    exit_code = 11
