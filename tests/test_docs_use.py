"""`docs/use.md`: every command runs, in the order of the page; its Python example works; its figures are the measured ones."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from exporting import ROOT, TINY, run_cli
from occport.frames.source import load_frame
from own_frames import write_frames

pytestmark = pytest.mark.xdist_group("ray")  # one of the commands starts it

PAGE = (ROOT / "docs/use.md").read_text(encoding="utf-8")
COMMANDS = [line for text in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for line in text.splitlines()]
RESULTS = ROOT / "bench/results/dataset.json"


@pytest.fixture
def desk(traces, tmp_path, monkeypatch) -> Path:
    """A folder with the reader's frame in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("occport.export.build.trace", traces)
    monkeypatch.setattr("occport.export.pipeline._check_others", lambda *arguments, **named: None)
    Path("my").mkdir()
    write_frames(Path("my"))
    return tmp_path


def argument(word: str) -> str:
    """tiny.py stands in for every config."""
    return str(TINY) if "configs/surroundocc/" in word else word.replace("surroundocc_micro_", "tiny_")


def test_every_command_and_the_example_run_in_the_order_of_the_page(desk):
    pytest.importorskip("ray")
    pytest.importorskip("rerun")
    for line in COMMANDS:
        program, *words = shlex.split(line)
        assert program == "occport", line
        ran = run_cli(*map(argument, words))
        assert ran.status == 0, (line, ran.out, ran.err)
    assert {path.name for path in Path("out/torch").iterdir()} == {path.name for path in Path("out/ray").iterdir()}
    for path in Path("out/torch").glob("*.npz"):
        np.testing.assert_array_equal(np.load(path)["labels"], np.load(Path("out/ray") / path.name)["labels"])
    assert {"IoU", "mIoU", "classes", "frames"} <= json.loads(Path("out/scores.json").read_text()).keys()
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    frame = load_frame("my/frame.json", num_cameras=4)
    exec(compile(argument(example), "use.md", "exec"), {"images": frame.images, "lidar2img": frame.lidar2img})
    assert Path("out/api/frame.npz").is_file()


def test_figures_are_the_measured_ones():
    rows = json.loads(RESULTS.read_text())["rows"]
    for name in ("micro, 1 process", "micro, Ray, 2 workers, 1 thread each", "full size, 1 process"):
        row = rows[name]
        cells = " | ".join(f"{row[key]:.3g}" for key in ("reading/s", "inference/s", "writing/s", "frames/s"))
        assert f"| {name} | {cells} |" in PAGE
    scored = rows["counts 200x200x16, 1 process"]
    assert f"{scored['frames/s']:.0f} frames/s, {scored['nuScenes val, min, extrapolated']:.1f} min" in PAGE
