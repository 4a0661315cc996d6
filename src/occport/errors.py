"""The two ways in which occport ends badly, each with its exit status.

A `UserError` is something the user can mend: one line that says what, expected, got and the next step; exit status 2.
A `VerificationFailed` is a file that is not what it should be; exit status 1. Everything else is our own bug.
"""

from __future__ import annotations


class UserError(Exception):
    """Bad input. `str(error)` is one line: "what: expected …, got …; next step".

    Args:
        what: the thing that is wrong, with its name (file, dotted key, flag).
        expected: what would have been right.
        got: what was found instead.
        fix: what the user can do about it.
    """

    exit_status = 2

    def __init__(self, what: str, *, expected: str = "", got: str = "", fix: str = "") -> None:
        self.what, self.expected, self.got, self.fix = what, expected, got, fix
        middle = ", ".join(part for part in (f"expected {expected}" if expected else "", f"got {got}" if got else "") if part)
        line = f"{what}: {middle}" if middle else what
        super().__init__(" ".join((f"{line}; {fix}" if fix else line).split()))


class ConfigError(UserError):
    """A config file or an override that cannot be used."""


class CheckpointError(UserError):
    """A weights file that is damaged, unsafe, or of another network."""


class FrameError(UserError):
    """Images or calibration that cannot be used."""


class ExportError(UserError):
    """An export that cannot be: opset, dialect, budget, output place."""


class ModelFileError(UserError):
    """An ONNX file or its manifest that cannot be read."""


class VerificationFailed(Exception):
    """The written file is not what it should be. `failures` holds a line for each failed check."""

    exit_status = 1

    def __init__(self, failures: list[str]) -> None:
        self.failures = failures
        count = len(failures)
        super().__init__(f"verification failed: {count} {'check' if count == 1 else 'checks'} of the list above; nothing was written")
