"""Find out what an unknown compiler takes.

`probe -o DIR` writes tiny models, each with one open question, and DIR/run.sh, which runs your own compile-and-run command on each:
CMD='mycompiler --model {model} --inputs {inputs} --outputs {outputs}' sh DIR/run.sh
`probe --results DIR` reads what came of them and writes DIR/dialect.toml, for `export --dialect`, and DIR/report.md.
Exit status 1 says that the compiler refuses something that the network needs, or that something is still unknown.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-o", "--output-dir", type=Path, metavar="DIR", help="write the probes into a new folder")
    what.add_argument("--results", type=Path, metavar="DIR", help="read the results of the probes in DIR")
    around = "with -o: what the probes vary (default: that of `export`); an earlier round's dialect.toml asks around what it found"
    parser.add_argument("--dialect", metavar="NAME|FILE.toml", help=around)


def run(options: argparse.Namespace) -> int:
    """Writes probes, or reads their results. Returns 1 where no way, or no certain one, was found."""
    from ..errors import ExportError

    if options.results is None:
        return _write(options.output_dir, options.dialect)
    if options.dialect is not None:
        raise ExportError("--dialect", expected="-o, which writes probes around it", got="--results", fix="leave --dialect out")
    return _read(options.results)


def _write(folder: Path, name: str | None) -> int:
    from ..graph.dialect import default, load
    from ..kit.probe.write import write_probes

    dialect = default() if name is None else load(name)
    probes = write_probes(folder, dialect)
    print(f"{len(probes)} probes around dialect {dialect.name} in {folder}")
    print(f"next: CMD='mycompiler --model {{model}} --inputs {{inputs}} --outputs {{outputs}}' sh {folder}/run.sh")
    return 0


def _read(folder: Path) -> int:
    from ..kit.probe.reading import read_probes
    from ..kit.probe.report import refusals
    from ..kit.probe.results import COMPILED, NOT_RUN, PASSED, WRONG

    reading = read_probes(folder)
    results, plan = reading.results, reading.found.plan
    print(f"{len(results.results)} probes: {results.count(PASSED)} passed, {results.count(COMPILED)} compiled only, ", end="")
    print(f"{results.count(WRONG)} with wrong values, {results.count(NOT_RUN)} not run")
    print(f"{plan.way}, opset {plan.opset}, calibration {plan.calibration}")
    for path in reading.files:
        print(path)
    for line in refusals(results, reading.found):
        print(f"no way: {line}")
    if reading.found.refused:
        print("next: show these probes to whoever makes the compiler; what comes closest is in the report")
    elif reading.found.unknown:
        missing = results.count(NOT_RUN)
        on = f"{missing} probes were not run, run.sh goes on where it stopped" if missing else f"ask again: {reading.again}"
        print(f"not finished: {len(reading.found.unknown)} needs are still unknown; {on}")
    if reading.complete:
        print(f"next: {reading.export}")
    return 0 if reading.complete else 1
