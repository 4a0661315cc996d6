"""The documents tell the truth: their commands run, their flags, files and links exist, their figures are the measured ones."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import runpy
import shlex
import shutil
import sys
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from exporting import ROOT, TINY, Ran, TraceOnce, run_cli, seeded_network
from occport import cli
from occport.export.agreement import percent
from occport.frames.frame_json import read_frame_json
from occport.graph import dialect as dialects
from own_frames import write_frames

pytestmark = pytest.mark.xdist_group("readme")

README, CHINESE, BRING_UP = ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "docs/bring-up.md"
CHIPS, OPERATORS, USE = ROOT / "docs/chips.md", ROOT / "docs/operators.md", ROOT / "docs/use.md"
SPEED, DEBUG = ROOT / "docs/speed.md", ROOT / "docs/debug.md"
DOCUMENTS = [README, CHINESE, BRING_UP, CHIPS, OPERATORS, USE, SPEED, DEBUG, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
READERS = DOCUMENTS[:3]  # what users read from the top; the commands of the other pages have tests of their own
RESULTS = ROOT / "bench/results/export.json"
PRECISION = ROOT / "bench/results/precision.json"
FOREIGN_FLAGS = {"--strict", "--model", "--load-outputs"}  # mypy's, those of the reader's compiler, and Polygraphy's
# folders that the reader or a command makes
MADE = ("out/", "my/", "probes/", "vectors/", "test_data_set_0/", "npy/", "raw/", "CASE/", "test_NAME/")
FIGURES = (  # the rows of the README's table, in order: row of the results, cell
    ("dl opset 11", "{0[trace to file s]:.0f} s, {0[trace peak GiB]:.1f} GiB"),
    ("dl opset 11", "{0[nodes]:,}"),
    ("dl opset 11", "{0[ONNX Runtime frame s]:.0f} s"),
    ("standard opset 20, fixed", "{0[ONNX Runtime frame s]:.0f} s"),
    ("PyTorch fp32", "{0[PyTorch frame s]:.0f} s, {0[run peak GiB]:.1f} GiB"),
    ("whole export", "{0[whole command s]:.0f} s, {0[run peak GiB]:.1f} GiB"),
)


def blocks(document: Path, *languages: str) -> list[str]:
    """The code blocks in any of these languages, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def commands(document: Path) -> list[list[str]]:
    """The commands of the bash blocks as words, without comments."""
    lines = [shlex.split(line, comments=True) for text in blocks(document, "bash") for line in text.splitlines()]
    return [words for words in lines if words]


def console() -> tuple[list[str], list[str]]:
    """The command above the README's sample of output, and the lines of the sample."""
    (text,) = blocks(README, "console")
    first, *lines = text.splitlines()
    assert first.startswith("$ ")
    return shlex.split(first[2:]), lines


def figures(document: Path) -> list[str]:
    """The last cells of the table that compares with the original."""
    _, _, table = document.read_text().partition("| occport |\n|---|---|---|\n")
    rows = table.partition("\n\n")[0].splitlines()
    return [row.strip("|").split("|")[-1].strip() for row in rows]


def flags_of(text: str) -> set[str]:
    """Everything that looks like a long flag."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))


def known_flags() -> set[str]:
    """The flags of every command."""
    found = set()
    for verb in cli.VERBS.values():
        parser = argparse.ArgumentParser()
        import_module(f"occport.commands.{verb.module}").add_arguments(parser)
        found |= {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")}
    return found


def test_readmes_are_short():
    for document in (README, CHINESE):
        assert len(document.read_text().splitlines()) <= 150, document.name


def test_both_readmes_show_the_same():
    assert commands(README) == commands(CHINESE)
    assert blocks(README, "json", "console") == blocks(CHINESE, "json", "console")
    english, chinese = (re.sub(r" *# .*", "", text) for (text,) in (blocks(README, "python"), blocks(CHINESE, "python")))
    assert english == chinese
    assert flags_of(README.read_text()) == flags_of(CHINESE.read_text())
    assert figures(README)[: len(FIGURES)] == figures(CHINESE)[: len(FIGURES)]
    headings = [re.findall(r"^#+(?= )", document.read_text(), re.MULTILINE) for document in (README, CHINESE)]
    assert headings[0] == headings[1]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links(document):
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if not target.startswith("https://"):
            assert (document.parent / target).is_file(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(document):
    for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", document.read_text()):
        if not name.startswith(MADE):
            assert (ROOT / name).exists() or (ROOT / "src/occport" / name).exists(), name


@pytest.mark.parametrize("document", (README, CHINESE), ids=lambda path: path.name)
def test_code_map_is_complete(document):
    rows = document.read_text().rpartition("\n## ")[2]
    mapped = set(re.findall(r"`src/occport/([\w.]+)/?`", rows))
    package = ROOT / "src/occport"
    folders = {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    files = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    assert mapped == folders | files


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_flags_exist(document):
    assert flags_of(document.read_text()) <= known_flags() | FOREIGN_FLAGS


def test_every_flag_is_told():
    told = set.union(*(flags_of(document.read_text()) for document in (README, BRING_UP, CHIPS, USE, SPEED, DEBUG)))
    assert known_flags() - {"--help"} <= told


def test_every_guess_is_told():
    text = BRING_UP.read_text()
    for guess in dialects.load("dl").guesses:
        assert flags_of(guess.flag) <= flags_of(text), guess.what
        assert flags_of(guess.flag) <= known_flags(), guess.what


def test_make_targets():
    makefile = (ROOT / "Makefile").read_text()
    told = [words[1:] for document in DOCUMENTS for words in commands(document) if words[0] == "make"]
    told += [match.split() for document in DOCUMENTS for match in re.findall(r"`make ([^`]+)`", document.read_text())]
    assert ["export"] in told and ["test"] in told
    for target, *settings in told:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        for setting in settings:
            variable, _, value = setting.partition("=")
            assert f"$({variable})" in makefile, setting
            assert variable != "CONFIG" or (ROOT / value).is_file(), setting


def test_figures_are_the_measured_ones():
    cells = figures(README)
    assert len(cells) == len(FIGURES) + 1, "the last row holds words"
    if not RESULTS.is_file():
        pytest.skip("bench/results/export.json is not there; `make bench` writes it")
    rows = json.loads(RESULTS.read_text())["rows"]
    assert cells[: len(FIGURES)] == [form.format(rows[row]) for row, form in FIGURES]


def test_precisions_are_the_measured_ones():
    for document in (README, CHINESE):
        for name, row in json.loads(PRECISION.read_text())["rows"].items():
            seconds = f"{row['ONNX Runtime frame s']:.0f} s" if "ONNX Runtime frame s" in row else "–"
            cells = []
            for found in row["agreement"].values():
                worst = found["scales"][found["worst_scale"]]["agreement"]
                cells.append(f"{percent(found['scales'][-1]['agreement'])}, {percent(worst)} (scale {found['worst_scale']})")
            assert f"| {name} | {row['file MB']:.0f} MB | {seconds} | {cells[0]} | {cells[1]} |" in document.read_text()


def test_frame_example(tmp_path):
    (text,) = blocks(README, "json")
    ((name, camera),) = json.loads(text)["cameras"].items()
    Image.fromarray(np.zeros((900, 1600, 3), np.uint8)).save(tmp_path / camera["file"])
    (tmp_path / "frame.json").write_text(text)
    frame = read_frame_json(tmp_path / "frame.json")
    assert frame.camera_names == (name,)
    column, row, depth = (frame.lidar2img[0] @ [1.0, 10.0, 0.0, 1.0])[:3]  # 1 m to the right, 10 m ahead, at the LiDAR's height
    assert depth == pytest.approx(10 - 0.4)
    assert (column / depth, row / depth) == pytest.approx((800 + 1266 / 9.6, 450 - 1266 * 0.3 / 9.6))


class Desk:
    """Where the documents' commands run: tiny.py stands in for every config, a folder for out/, the test's own files for the user's."""

    def __init__(self, folder: Path, traces: TraceOnce) -> None:
        self.folder, self._traces = folder, traces
        self._ran: dict[str, Ran] = {}
        torch.save({"state_dict": seeded_network().model.state_dict(), "meta": {}}, folder / "surroundocc.pth")
        write_frames(folder)

    def argument(self, word: str) -> str:
        """What stands in for one word of a command."""
        if "configs/surroundocc/" in word:
            return str(TINY)
        word = word.replace("nuscenes_infos_val.pkl", "infos.pkl")
        if word.startswith("my/"):
            return str(self.folder / word.removeprefix("my/"))
        if word.startswith("out/"):
            return str(self.folder / word.replace("surroundocc", "tiny", 1))
        return word

    def run(self, words: list[str], *, whole: bool = False) -> Ran:
        """Runs a command, each only once. Checks on other rigs, which other tests hold, are left out unless `whole`."""
        if words[0] == "occport":
            program, *rest = words
        else:
            python, program, *rest = words
            assert python == "python" and (ROOT / program).is_file()
        rest = [self.argument(word) for word in rest]
        if program.endswith("export.py") or rest[0] == "export":
            if "--output-dir" in rest:
                del rest[(place := rest.index("--output-dir")) : place + 2]
            rest += ["--output-dir", str(self.folder / ("out" if whole else "others"))]  # the others may have the same name
        key = shlex.join([program, *rest])
        if key not in self._ran:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("occport.export.build.trace", self._traces)
                if not whole:
                    patch.setattr("occport.export.pipeline._check_others", lambda *arguments, **named: None)
                self._ran[key] = run_cli(*rest) if program == "occport" else run_script(ROOT / program, rest)
        return self._ran[key]


def run_script(path: Path, words: list[str]) -> Ran:
    """A Python file as `python FILE …` runs it, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", [str(path), *words])
        patch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(path), run_name="__main__")
    return Ran(int(end.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """See `Desk`; the default export is there."""
    folder = tmp_path_factory.mktemp("readme")
    desk = Desk(folder, TraceOnce())
    desk.run(console()[0], whole=True)
    for verb in ("synth", "predict"):  # what other commands of the page then work on
        for words in commands(README):
            if words[:2] == ["occport", verb]:
                desk.run(words)
    yield desk
    shutil.rmtree(folder)  # an exported file has 100 MB


RUNNABLE = sorted({shlex.join(words) for document in READERS for words in commands(document) if words[0] in ("occport", "python")})


@pytest.mark.parametrize("command", RUNNABLE)
def test_commands_run(desk, command):
    ran = desk.run(shlex.split(command))
    assert ran.status == 0, (ran.out, ran.err)
    if " export" in command or "export.py" in command:
        assert "checks passed" in ran.out
        assert ("UNTRAINED" in ran.out) == ("--checkpoint" not in command)


def test_other_commands_are_make_and_activate():
    words = {command[0] for document in READERS for command in commands(document)}
    assert words <= {"occport", "python", "make", "."}


def plain(line: str) -> str:
    """A line of output without what differs from network to network: numbers, names, paths."""
    line = re.sub(r"\b[0-9a-f]{6,32}\b…?", "FRAME", line)
    line = re.sub(r"\S*/frame\.json", "PATH", line)
    line = re.sub(r"\S*/(?:surroundocc|tiny)_", "PATH", line)
    line = re.sub(r" \[(?:this file|micro sizes)\]", "", line)
    line = re.sub(r"DL::\w+", "NODE", line)
    line = re.sub(r"-?\d[\d,.]*(?:e[+-]\d+)?", "0", line)
    return line.partition("…")[0].rstrip()


def test_output_is_todays(desk):
    command, lines = console()
    ran = desk.run(command, whole=True)
    assert ran.status == 0, ran.err
    real = [plain(line) for line in (ran.err + ran.out).splitlines()]
    for line in lines:
        wanted = plain(line)
        wanted = re.sub(r"max abs.*|labels agree on.*", "", wanted)  # how far each network gets is its own
        if not wanted.startswith("other rigs and images run on"):  # of large networks only
            assert any(known.startswith(wanted) for known in real), (line, wanted)


def test_python_example():
    (text,) = blocks(README, "python")
    text = re.sub(r'"projects/configs/\S+"', repr(str(TINY)), text).replace("(928, 1600)", "(64, 96)")
    names: dict[str, Any] = {}
    exec(compile(text, "README.md", "exec"), names)
    shapes = [tuple(scale.shape) for scale in names["logits"]]
    assert shapes == [(1, 17, 2, 3, 1), (1, 17, 4, 6, 2), (1, 17, 8, 12, 4), (1, 17, 16, 24, 8)]


def test_changelog_names_every_command():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    for verb in set(cli.VERBS) - {"export"}:
        assert f"`occport {verb}" in text
    guesses = set.union(*(flags_of(guess.flag) for guess in dialects.load("dl").guesses))  # summed up as "a flag for each guess"
    assert flags_of(text) | guesses >= known_flags() - {"--help", "--seed", "--output-dir"}


def test_bring_up_document_has_every_step():
    headings = re.findall(r"^## (.*)\n\n(.*)$", BRING_UP.read_text(), re.MULTILINE)
    steps = ["Environment", "1.1", "1.2", "2.1", "2.2", *(f"Export {number}" for number in range(1, 6)), "Config", "Run"]
    for step, (heading, summary) in zip_longest(steps, headings[: len(steps)]):
        assert heading.startswith(step)
        assert re.search(r"[\u4e00-\u9fff]", summary), f"{heading}: a line in Chinese"
