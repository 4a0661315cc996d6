"""What `import occport` offers, and what it must not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import occport

PUBLIC = ["Config", "Occupancy", "Predictor", "SurroundOcc", "UserError", "VerificationFailed", "build_model", "read_config"]
HEAVY = ("torch", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "PIL", "rich", "safetensors")


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LOADED = f"; import sys; print([name for name in {HEAVY!r} if name in sys.modules])"


def test_public_names():
    assert occport.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(occport))
    for name in PUBLIC:
        assert getattr(occport, name).__name__ == name
    assert occport.__version__.count(".") == 2


def test_where_the_names_come_from():
    from occport.config import Config, read_config
    from occport.errors import UserError, VerificationFailed
    from occport.model.surroundocc import SurroundOcc, build_model
    from occport.use.predictor import Predictor
    from occport.voxels.occupancy import Occupancy

    found = [getattr(occport, name) for name in PUBLIC]
    assert found == [Config, Occupancy, Predictor, SurroundOcc, UserError, VerificationFailed, build_model, read_config]


def test_star_import():
    assert python(f"from occport import *; print(all(name in globals() for name in {PUBLIC!r}))") == "True"


@pytest.mark.parametrize("name", ["Surroundocc", "readConfig", "__wrapped__", "torch"])
def test_an_unknown_name(name: str):
    with pytest.raises(AttributeError, match=f"module 'occport' has no attribute '{name}'"):
        getattr(occport, name)


@pytest.mark.parametrize(
    "code",
    [
        "import occport",
        "import occport; occport.__version__, dir(occport)",
        "import occport; occport.read_config, occport.Config, occport.UserError, occport.VerificationFailed",
        "import occport; occport.Occupancy",
        "import occport.cli",
        "import occport.use.choice, occport.commands.network_flags",
        "import occport.frames.rig, occport.frames.visibility, occport.staging, occport.errors",
    ],
)
def test_nothing_heavy_is_loaded(code: str):
    assert python(code + LOADED) == "[]"


def test_graph_and_sessions_never_load_torch():
    """A file can be retargeted, read and run where torch is not installed."""
    code = "import importlib, pkgutil, sys, occport.graph, occport.session, occport.compare\n"
    code += "for module in pkgutil.walk_packages(occport.graph.__path__, 'occport.graph.'): importlib.import_module(module.name)\n"
    assert python(code + "print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["export", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]):
    code = (
        f"import runpy, sys; sys.argv = ['occport', *{arguments!r}]\n"
        "try:\n    runpy.run_module('occport', run_name='__main__')\nexcept SystemExit as end:\n    status = end.code\n"
        "print(); print(status)" + LOADED
    )
    text, status, loaded = python(code).rsplit("\n", 2)
    assert (status, loaded) == ("0", "[]")
    assert "occport" in text


def test_the_model_loads_only_its_own_rooms():
    code = "import sys, occport; occport.build_model; print(*(name for name in sys.modules if name.startswith('occport.')))"
    rooms = {name.split(".")[1] for name in python(code).split()}
    assert {"model", "ops", "config", "errors"} <= rooms
    assert not rooms & {"graph", "export", "frames", "commands", "session"}
