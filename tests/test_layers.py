"""The rules of the house (`design.md`, `style.md`), read off the source: who may import whom, and how long things may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from occport.graph import dialect as dialects

SOURCE = Path(__file__).resolve().parents[1] / "src" / "occport"
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))

LEAVES = {"errors", "staging", "output_files", "progress", "compare", "session", "memory", "external_data", "columns"}
WEIGHTS = {"checkpoint", "weights_file", "seeds"}

# room → rooms that it may import, beside itself
MAY_IMPORT = {
    "leaves": set(),
    "config": {"leaves"},
    "ops": set(),
    "model": {"ops", "config"},
    "weights": {"leaves", "config", "model"},
    "voxels": {"leaves"},
    "frames": {"leaves", "config"},
    "city": {"leaves", "voxels", "frames"},
    "graph": {"leaves", "config"},
    "export": {"leaves", "config", "ops", "model", "weights", "voxels", "frames", "city", "graph"},
    "kit": {"leaves", "config", "frames", "graph", "export"},
    "use": {"leaves", "config", "model", "weights", "voxels", "frames", "city", "graph", "export"},
    "measure": {"leaves", "config", "ops", "model", "weights", "voxels", "frames", "city", "graph", "export", "use"},
    "view": {"leaves", "config", "voxels", "frames"},
    "bringup": {"leaves", "config", "voxels", "frames", "graph", "export", "kit", "use", "measure", "view"},
    "commands": {"leaves", "config", "voxels", "frames", "city", "graph", "export", "kit", "use", "measure", "view", "bringup"},
    "cli": {"leaves"},  # and the commands, by name
    "__main__": {"cli"},
    "occport": set(),  # `occport/__init__.py`, but for type checkers
}
# package → rooms that may import it; anywhere else it is an error
RESTRICTED = {
    "torch": {"ops", "model", "weights", "export", "use", "measure"},
    "onnx": {"graph", "export", "leaves", "kit", "bringup"},
    "onnx_ir": {"graph", "export", "kit", "bringup"},
}
IN_ONE_FILE = ("PIL", "rich", "safetensors", "onnxruntime", "onnxscript", "scipy", "ray", "rerun", "matplotlib", "jinja2")
MAX_LINES = {"file": 300, "function": 60}
TABLES: set[str] = set()  # files that are one table may be longer
VENDORS = re.compile(r"DL::|[\"'`]dl[\"'`]|\b(?:tensorrt|mmdeploy|ascend|autoware)\b", re.IGNORECASE)
SHAPE = re.compile(r"\((?:B|A|N|V|[A-Z]\w*)(?:\*\w+)*, ")


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((SOURCE / file).read_text())


def room_of(module: str) -> str:
    """The room of a module, dotted from the package: "graph.opset" → "graph", "session" → "leaves"."""
    first = module.split(".")[0]
    if first in LEAVES:
        return "leaves"
    if first in WEIGHTS:
        return "weights"
    if first == "config" or first.startswith("config_"):
        return "config"
    return first or "occport"


def module_of(file: str) -> str:
    return re.sub(r"(^|/)__init__\.py$|\.py$", "", file).replace("/", ".")


@cache
def imports(file: str) -> list[tuple[str, str]]:
    """Every import, also inside functions: (package, module inside it). For occport's own the package is "occport"."""
    found = []
    here = file.split("/")[:-1]
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found += [tuple(alias.name.partition(".")[::2]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            package, _, inside = (node.module or "").partition(".")
            found += [(package, f"{inside}.{alias.name}".strip(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])])
            # straight from the top, a name counts as a room, so that the lazy `from .. import read_config` is seen through
            found += [("occport", folder or alias.name) for alias in node.names]
    return found


def functions(file: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def where(file: str, node: ast.AST) -> str:
    return f"{file}:{getattr(node, 'lineno', 0)}"


def test_the_rooms_are_known():
    assert len(FILES) > 50
    assert {room_of(module_of(file)) for file in FILES} <= set(MAY_IMPORT)
    assert all(f"{leaf}.py" in FILES for leaf in LEAVES | WEIGHTS)


@pytest.mark.parametrize("file", FILES)
def test_imports_of_other_rooms(file: str):
    room = room_of(module_of(file))
    if file == "__init__.py":
        checked = [node for node in tree(file).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert all(isinstance(node, ast.ImportFrom) and node.level == 0 for node in checked)
        return
    allowed = {room, *MAY_IMPORT[room], "__version__"}
    wrong = [module for package, module in imports(file) if package == "occport" and room_of(module) not in allowed]
    assert not wrong, f"{file}, of {room}, imports {', '.join(wrong)}"


@pytest.mark.parametrize("file", FILES)
def test_imports_of_heavy_packages(file: str):
    room = room_of(module_of(file))
    for package, _ in imports(file):
        assert room in RESTRICTED.get(package, {room}), f"{file}, of {room}, imports {package}"


@pytest.mark.parametrize("package", IN_ONE_FILE)
def test_optional_dependencies_stand_in_one_file(package: str):
    users = sorted({file for file in FILES for name, _ in imports(file) if name == package})
    assert len(users) == 1, f"{package} is imported by {users}"


@pytest.mark.parametrize("file", FILES)
def test_only_commands_print_or_exit(file: str):
    for node in ast.walk(tree(file)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called == "print":
            assert file == "cli.py" or file.startswith("commands/"), where(file, node)
        if called in ("sys.exit", "exit", "quit", "os._exit"):
            assert file in ("__main__.py", "cli.py") or file.startswith("commands/"), where(file, node)


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith(("model/", "ops/"))])
def test_the_network_knows_no_vendor(file: str):
    for number, line in enumerate((SOURCE / file).read_text().splitlines(), 1):
        found = VENDORS.search(line)
        assert not found, f"{file}:{number}: {line.strip()}"


def _operators(dialect: dialects.Dialect) -> list[str]:
    return [each for contract in (dialect.msda, dialect.dcn) for each in (contract.domain, contract.op_type) if each]


NAMES = {each for name in dialects.names() if name != "standard" for each in (name, *_operators(dialects.load(name)))}


@pytest.mark.parametrize("file", FILES)
def test_no_vendors_name_stands_in_code(file: str):
    """Names of dialects, their domains and operators are data: in `dialects/*.toml`, never in a string of the code."""
    texts = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            texts.add(id(node.body[0].value))
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", node.value)) - ({"mmcv"} if room_of(module_of(file)) == "weights" else set())
            assert not words & NAMES, f"{file}:{node.lineno}: {node.value!r}"


@pytest.mark.parametrize("file", FILES)
def test_lengths(file: str):
    if file not in TABLES:
        assert len((SOURCE / file).read_text().splitlines()) <= MAX_LINES["file"]
    for function in functions(file):
        lines = (function.end_lineno or 0) - function.lineno + 1
        if ast.get_docstring(function) is not None:
            text = function.body[0]
            lines -= (text.end_lineno or 0) - text.lineno + 1
        assert lines <= MAX_LINES["function"], f"{where(file, function)}: {function.name} has {lines} lines"


@pytest.mark.parametrize("file", FILES)
def test_no_keyword_tunnels(file: str):
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            assert node.args.kwarg is None, where(file, node)


@pytest.mark.parametrize("file", FILES)
def test_every_module_and_public_function_is_described(file: str):
    assert ast.get_docstring(tree(file)), file
    for function in tree(file).body:
        if isinstance(function, ast.FunctionDef | ast.ClassDef) and not function.name.startswith("_"):
            assert ast.get_docstring(function), f"{where(file, function)}: {function.name}"


@pytest.mark.parametrize("file", FILES)
def test_every_forward_gives_shapes(file: str):
    for function in functions(file):
        if function.name == "forward":
            assert SHAPE.search(ast.get_docstring(function) or ""), f"{where(file, function)}: {ast.get_docstring(function)!r}"


@pytest.mark.parametrize("file", FILES)
def test_dataclasses_are_frozen(file: str):
    for node in ast.walk(tree(file)):
        for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else []:
            text = ast.unparse(decorator)
            if text.startswith(("dataclass", "dataclasses.dataclass")):
                assert "frozen=True" in text, where(file, node)


@pytest.mark.parametrize("file", FILES)
def test_names_say_what_a_file_is(file: str):
    assert not {"utils", "util", "core", "base", "common", "helpers", "misc"} & set(module_of(file).split("."))
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", (SOURCE / file).read_text()), file
