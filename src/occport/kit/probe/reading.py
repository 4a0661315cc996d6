"""From results to `dialect.toml` and `report.md` beside them."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path
from typing import NamedTuple

from ...graph.dialect import Dialect, read
from ...staging import Staging
from .evidence import Evidence
from .found import base_name, dialect_of
from .plan import Found, find
from .report import export_command, report
from .results import Results, read_results
from .toml import dialect_toml

DIALECT, REPORT = "dialect.toml", "report.md"


class Reading(NamedTuple):
    """What was found. `again`: the command of another round of probes around it; `export`: that of the network's export."""

    results: Results
    found: Found
    dialect: Dialect
    files: list[Path]
    again: str
    export: str

    @property
    def complete(self) -> bool:
        """Whether the compiler took everything that the network needs."""
        return not (self.found.refused or self.found.unknown)


def read_probes(folder: Path, today: datetime.date | None = None) -> Reading:
    """Reads the results in a folder of probes and writes `dialect.toml` and `report.md` there, whatever was found.

    Raises:
        ModelFileError: no probes, or no results, in the folder.
        ExportError: it cannot be written to.
    """
    results = read_results(folder)
    evidence = Evidence(results)
    found = find(results.dialect, evidence)
    dialect = dialect_of(results, found, today or datetime.date.today())
    file = folder / DIALECT
    again = f"occport probe -o {shlex.quote(f'{folder}-2')} --dialect {shlex.quote(str(file))}"
    export = export_command(file, results)
    with Staging(folder) as stage:
        text = dialect_toml(dialect, base_name(results, found.plan), "Found by `occport probe`; report.md beside it tells how.")
        (stage.path / DIALECT).write_text(text, encoding="utf-8")
        assert read(stage.path / DIALECT) == dialect, "the file does not say what was found"
        page = report(results, evidence, found, dialect, file, again, export)
        (stage.path / REPORT).write_text(page, encoding="utf-8")
        files = stage.commit()
    return Reading(results, found, dialect, files, again, export)
