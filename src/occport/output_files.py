"""Files that flags of a command name: tried before the work, put in place as a whole after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .errors import ExportError
from .staging import Staging


def write_file(flag: str, path: Path, content: str | bytes | None) -> None:
    """Puts a file that a flag names in place as a whole; without content it is only tried whether that would be possible.

    What is there and no file (/dev/stdout, a pipe) is written to, not replaced.

    Errors: ExportError that names the flag, for a folder and for a place that cannot be written to.
    """
    fix = f"choose another with {flag}"
    if path.is_dir():
        raise ExportError(f"{flag} {path}", expected="a file to write", got="a folder", fix=fix)
    try:
        if path.exists() and not path.is_file():
            if content is not None:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            return
        with Staging(path.parent) as stage:
            (stage.path / path.name).write_bytes(content.encode() if isinstance(content, str) else content or b"")
            if content is not None:
                stage.commit()
    except (ExportError, OSError) as error:
        got = error.got if isinstance(error, ExportError) else error.strerror or str(error)
        raise ExportError(f"{flag} {path}", expected="a file that can be written", got=got, fix=fix) from error


def try_files(files: Sequence[tuple[str, Path | None]]) -> None:
    """Tries, before the work, whether the files that flags name can be written; None for a flag that was not given.

    Errors: ExportError as of `write_file`, and for two flags that name one file.
    """
    named: dict[Path, str] = {}
    for flag, path in files:
        if path is None:
            continue
        place = path.resolve()
        if place in named and (path.is_file() or not path.exists()):
            raise ExportError(f"{flag} {path}", expected=f"another file than that of {named[place]}", got="the same", fix="name two files")
        named[place] = flag
        write_file(flag, path, None)
