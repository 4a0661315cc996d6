"""The command line itself: verbs, help, exit statuses, and the command of the bring-up document."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exporting import MICRO, ROOT, TINY, assert_refused, run_cli
from occport import __version__, cli
from occport.errors import ConfigError, VerificationFailed

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def test_help_lists_every_command():
    ran = run_cli("--help")
    assert ran.status == 0 and ran.err == ""
    for name, verb in cli.VERBS.items():
        assert f"  {name:<10} {verb.help}" in ran.out
    assert run_cli().out == ran.out  # nothing at all asks for help


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_help_of_each_command(verb):
    ran = run_cli(verb, "--help")
    assert ran.status == 0 and ran.err == "" and ran.out.startswith(f"usage: occport {verb}")
    assert len(ran.out.splitlines()) > 5


def test_version():
    assert run_cli("--version").out == f"occport {__version__}\n"


@pytest.mark.parametrize("argv", [["exprot"], ["run", "--config", "a"], ["--fast"], ["--config", "a", "export"]])
def test_unknown_command(argv):
    line = assert_refused(run_cli(*argv), "occport --help")
    assert "usage:" not in line


def options() -> argparse.Namespace:
    return argparse.Namespace()


def test_exit_statuses(capsys):
    def fail(error: BaseException):
        def command(options: argparse.Namespace) -> int:
            raise error

        return command

    assert cli.run(lambda options: 0, options()) == 0
    assert cli.run(fail(VerificationFailed(["a"])), options()) == 1
    assert cli.run(fail(ConfigError("a.key", expected="b", got="c", fix="d")), options()) == 2
    assert cli.run(fail(KeyboardInterrupt()), options()) == 130
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("occport: verification failed: 1 check") and lines[1] == "occport: a.key: expected b, got c; d"
    assert lines[2] == "occport: interrupted; nothing was written" and len(lines) == 3


def test_our_own_bugs_are_not_hidden():
    def command(options: argparse.Namespace) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run(command, options())


def test_imports_nothing_heavy_before_it_must():
    heavy = "[name for name in ('torch', 'onnx', 'numpy') if name in sys.modules]"
    code = f"import sys, occport.cli, occport.commands.export, occport.commands.verify; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reader_that_goes_away_is_no_error():
    """`occport dialects | head -1`."""
    command = [sys.executable, "-c", "import sys; from occport.cli import main; sys.exit(main(['dialects', 'dl']))"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_command_of_the_bring_up_document_has_the_flags_of_export():
    done = subprocess.run([sys.executable, ROOT / "tools/export.py", "--help"], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == run_cli("export", "--help").out


NODES = [(TINY, 3, 4, "CAM_0"), pytest.param(MICRO, 9, 5, "CAM_FRONT", marks=pytest.mark.full)]


@pytest.mark.parametrize(("config", "convs", "attention", "camera"), NODES)
def test_command_of_the_bring_up_document(config, convs, attention, camera, tmp_path):
    """From another folder, in a process of its own: what a user does first."""
    command = [sys.executable, ROOT / "tools/export.py", "--config", config]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stem = f"{config.stem}_UNTRAINED_dl_opset11_runtime"
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [f"out/{stem}.json", f"out/{stem}.onnx"]
    lines = done.stdout.splitlines()
    checks = [line for line in lines if line.startswith("-[✓] ")]
    assert len(checks) > 20 and not any(line.startswith("-[x]") for line in lines) and lines[-1] == f"all {len(checks)} checks passed"
    assert "UNTRAINED: seeded with 0, no checkpoint was given; what the network predicts is meaningless" in lines
    assert f"out/{stem}.onnx  {(tmp_path / f'out/{stem}.onnx').stat().st_size:,} bytes" in lines
    assert "[1/9] reading the frame … " in done.stderr and "[9/9] writing the manifest" in done.stderr and "done in" in done.stderr
    table = json.loads((tmp_path / f"out/{stem}.json").read_text())
    assert table["census"]["DL::ModulatedDeformConv2d"] == convs and table["census"]["DL::MultiScaleDeformableAttnFunction"] == attention
    assert table["frame"]["cameras"][0] == camera


def test_module_runs():
    done = subprocess.run([sys.executable, "-m", "occport", "--version"], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == f"occport {__version__}\n"


def test_every_command_is_a_file():
    folder = ROOT / "src/occport/commands"
    assert {verb.module for verb in cli.VERBS.values()} == {
        path.stem for path in Path(folder).glob("*.py") if path.stem != "__init__" and not path.stem.endswith("_flags")  # shared by verbs
    }
