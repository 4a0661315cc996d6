"""The command line: a table of verbs, each in a file of its own under `commands/`, loaded when it is used."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

from . import __version__
from .errors import UserError, VerificationFailed
from .staging import terminate_as_interrupt


class OneLineParser(argparse.ArgumentParser):
    """Wrong flags get one line, as every other bad input."""

    def error(self, message: str) -> NoReturn:
        """Prints the line and leaves with exit status 2."""
        print(f"occport: {message}; see `{self.prog} --help`", file=sys.stderr)
        sys.exit(UserError.exit_status)


class Verb(NamedTuple):
    """Where a command lives and what it is for."""

    module: str
    help: str


VERBS = {
    "export": Verb("export", "make a verified ONNX file from a config and a checkpoint"),
    "verify": Verb("verify", "check an exported file again"),
    "predict": Verb("predict", "label the voxels of a frame, a folder of frames or a dataset"),
    "evaluate": Verb("evaluate", "score a network, or what any runtime wrote, against ground truth"),
    "view": Verb("view", "draw a picture, or an interactive recording, of occupancy"),
    "bench": Verb("bench", "measure a frame by stage and operator, several backends side by side"),
    "synth": Verb("synth", "make a dataset of a synthetic city with exact ground truth"),
    "dialects": Verb("dialects", "list the dialects, or print one in full"),
    "lint": Verb("lint", "hold an ONNX file against a dialect's contract"),
    "retarget": Verb("retarget", "rewrite an ONNX file from one dialect into another"),
    "probe": Verb("probe", "find out what an unknown compiler takes"),
    "vectors": Verb("vectors", "write conformance vectors of the custom nodes for kernel authors"),
    "grade": Verb("grade", "judge what a kernel returned, and name its bug"),
    "golden": Verb("golden", "write the tensors inside a file for one frame"),
    "diff": Verb("diff", "hold a chip's tensors against golden ones and name the node to blame"),
    "split": Verb("split", "cut a file into sub-models with golden inputs and outputs"),
    "cost": Verb("cost", "count parameters, products and bytes, and time on a chip"),
    "hazards": Verb("hazards", "tell what half precision would do to a file"),
    "dossier": Verb("dossier", "put everything about a file on one page"),
}
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0, 1 (a verification failed), 2 (bad input) or 130 (interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in arguments if not word.startswith("-")), None)
    parser = _parser()
    if verb not in VERBS or arguments[0] != verb:
        parser.parse_args(arguments or ["--help"])  # leaves with help, the version, or the error for an unknown command
        parser.error("expected the command first")
    module = import_module(f".commands.{VERBS[verb].module}", __package__)
    command = OneLineParser(prog=f"occport {verb}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(command)
    return run(module.run, command.parse_args(arguments[1:]))


def run(command: object, options: argparse.Namespace) -> int:
    """Calls a command's `run(options)` and turns what can go wrong into one line and an exit status."""
    assert callable(command)
    terminate_as_interrupt()
    try:
        status = command(options)
    except (UserError, VerificationFailed) as error:
        print(f"occport: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt as stop:
        print("occport: interrupted; nothing was written", file=sys.stderr)
        return int(getattr(stop, "exit_status", INTERRUPTED))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == __package__:
            raise
        print(f"occport: the package {error.name} is not installed; set everything up with `make setup`", file=sys.stderr)
        return UserError.exit_status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read the output is gone
        return 1
    return int(status)


def _parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:<10} {verb.help}" for name, verb in VERBS.items())
    parser = OneLineParser(
        prog="occport",
        description="SurroundOcc on any accelerator: verified ONNX files with your chip's operators.",
        epilog=f"commands:\n{lines}\n\n`occport COMMAND --help` tells the flags of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="occport COMMAND [flags]",
    )
    parser.add_argument("--version", action="version", version=f"occport {__version__}")
    parser.add_argument("command", choices=VERBS, metavar="COMMAND", help="one of the commands below")
    return parser
