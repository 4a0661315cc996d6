"""`occport dossier` as a user runs it: both files, what they tell, what they say they cannot, and how the page looks."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import pytest

from browser import CHROMIUM
from exporting import Exported, assert_refused, run_cli
from occport.bringup.cost.cost import cost_of
from occport.bringup.precision.hazards import hazards_of
from occport.export.manifest import write_json
from occport.export.network_file import feeds_of, read_network
from page_seen import assert_fine, looked_at

SECTIONS = ["about", "verification", "cost", "precision", "operators", "prediction"]
EVIL = "<script>alert('x')</script>"


class Dossier:
    """What a run wrote."""

    def __init__(self, ran, folder: Path, stem: str) -> None:
        self.ran = ran
        self.path = folder / f"{stem}.dossier.html"
        self.page = self.path.read_text(encoding="utf-8")
        self.text = (folder / f"{stem}.dossier.json").read_text(encoding="utf-8")
        self.table = json.loads(self.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    @property
    def words(self) -> str:
        """The page's text."""
        body = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", self.page, flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def dossier(model: Path, folder: Path, *flags: object) -> Dossier:
    return Dossier(run_cli("dossier", model, "-o", folder, *flags), folder, model.stem)


def copied(export: Exported, folder: Path) -> Path:
    """The file and its manifest elsewhere, to be spoilt."""
    for path in (export.model, export.model.with_suffix(".json")):
        shutil.copy(path, folder / path.name)
    return folder / export.model.name


@pytest.fixture(scope="module")
def whole(runtime_export, tmp_path_factory) -> Dossier:
    folder = tmp_path_factory.mktemp("dossier")
    vectors = folder / "vectors"
    assert run_cli("vectors", runtime_export.model, "-o", vectors, "--cases", "edge", "--max-bytes", "3000000").status == 0
    return dossier(runtime_export.model, folder, "--chip", "example-edge", "--vectors", vectors)


def test_both_files_are_written_and_named(whole):
    assert whole.ran.status == 0, whole.ran.err
    assert [line.split("  ")[0] for line in whole.ran.out.splitlines()[:2]] == [str(whole.path), str(whole.path.with_suffix(".json"))]
    assert list(whole.table)[2:] == [*SECTIONS, "untold"] and whole.table["untold"] == {}


def test_it_tells_what_the_file_is(whole, runtime_export):
    about, manifest = whole.table["about"], runtime_export.manifest
    assert about["export"]["weights"] == manifest["weights"] and about["export"]["trained"] is False
    assert [(port["name"], port["dtype"], port["shape"], port["meaning"]) for port in about["inputs"] + about["outputs"]] == [
        (port["name"], port["dtype"], port["shape"], port["meaning"]) for port in manifest["inputs"] + manifest["outputs"]
    ]
    assert about["operators"] == manifest["census"] and about["nodes"] == manifest["nodes"]
    assert "UNTRAINED: the weights are made up" in whole.words
    for port in manifest["inputs"] + manifest["outputs"]:
        assert port["meaning"] in whole.words
    for guess in manifest["dialect"]["guesses"]:
        assert guess["what"] in whole.words and guess["flag"] in whole.words
    for entry in manifest["files"].values():
        assert entry["sha256"] in whole.words and f"{entry['bytes']:,}" in whole.words
    assert all(name in whole.words for name in manifest["classes"])
    assert manifest["versions"]["onnx"] in whole.words


def test_every_check_is_told_and_the_worst_stands_out(whole, runtime_export):
    told, checks = whole.table["verification"], runtime_export.manifest["verification"]
    assert told["checks"] == checks and told["verdict"] == "verified" and told["files"]["state"] == "same"
    assert (told["passed"], told["failed"]) == (len(checks), 0)
    for check in checks:
        assert check["name"] in whole.words and check["detail"] in whole.words
    here = [check for check in checks if check["where"] == "this file" and "max_abs" in check["figures"]]
    assert told["worst"]["logits"]["figures"]["max_abs"] == max(check["figures"]["max_abs"] for check in here)
    assert told["worst"]["labels"]["figures"]["agreement"] == min(
        check["figures"]["agreement"] for check in checks if "agreement" in check["figures"]
    )
    assert "Largest difference from PyTorch" in whole.words and "worst voxel" in whole.words


def test_the_cost_is_that_of_occport_cost(whole, runtime_export):
    cost = cost_of(read_network(runtime_export.model, None))
    told = whole.table["cost"]
    assert {key: told[key] for key in cost.to_json()} == json.loads(json.dumps(cost.to_json()))
    assert told["roofline"]["chip"]["name"] in whole.words and f"{told['roofline']['seconds'] * 1e3:,.4g} ms" in whole.words
    assert f"{cost.network.parameters:,} parameters" in whole.words
    assert "data:image/svg+xml;base64," in whole.page


def test_hazards_are_those_of_the_frame(whole, runtime_export):
    file = read_network(runtime_export.model, None)
    feeds, source = feeds_of(file, None, None)
    found = hazards_of(file, feeds, "fp16").to_json()
    assert whole.table["precision"]["hazards"] == {**json.loads(json.dumps(found)), "source": source}
    assert len(found["hazards"]) > 0 and source in whole.words
    for hazard in found["hazards"]:
        assert " ".join(hazard["words"].split()) in whole.words and hazard["advice"] in whole.words


def test_a_file_in_16_bits_tells_its_agreement(runtime_export, tmp_path):
    model = copied(runtime_export, tmp_path)
    manifest = json.loads(model.with_suffix(".json").read_text())
    figures = {"agreement_scale0": 0.875, "max_abs_scale0": 0.015625, "rms_scale0": 0.001, "agreement_scale3": 1.0}
    check = {"name": "fp16 against fp32", "passed": True, "detail": "DETAIL", "where": "this file", "figures": figures}
    manifest["verification"].append(check)
    write_json(model.with_suffix(".json"), manifest)
    made = dossier(model, tmp_path / "out", "--no-run")
    assert made.table["precision"]["agreement"][0]["scales"] == [
        {"scale": "0", "agreement": 0.875, "max_abs": 0.015625, "rms": 0.001},
        {"scale": "3", "agreement": 1.0, "max_abs": None, "rms": None},
    ]
    assert "fp16 against fp32" in made.words and "87.5000% 0.01562 0.001" in made.words


def test_contracts_and_nodes_are_told(whole, runtime_export):
    file = read_network(runtime_export.model, None)
    told = whole.table["operators"]["operators"]
    for key, contract, one in zip(("msda", "dcn"), (file.dialect.msda, file.dialect.dcn), told, strict=True):
        assert (one["key"], one["title"]) == (key, contract.title)
        assert [port["name"] for port in one["inputs"]] == [port.name for port in contract.inputs]
        nodes = [node for node in file.model.graph.node if node.op_type == contract.op_type]
        assert [node["name"] for node in one["nodes"]] == [node.name for node in nodes] and one["count"] == len(nodes)
    dcn = whole.table["operators"]["operators"][1]["nodes"][0]
    data, offset, _, weight = dcn["inputs"][:4]
    assert weight["origin"] == "weight" and offset["shape"][1] == 2 * weight["shape"][2] * weight["shape"][3]
    assert dcn["output"]["shape"][:2] == [data["shape"][0], weight["shape"][0]] and dcn["attributes"]["stride"] == [1, 1]
    shapes = whole.table["operators"]["operators"][0]["nodes"][0]["inputs"][1]
    assert shapes == {"shape": [1, 2], "dtype": "int64", "origin": "constant"}


def test_vectors_are_listed(whole):
    vectors = whole.table["operators"]["vectors"]
    cases = [case for one in whole.table["operators"]["operators"] for case in one["vectors"]]
    assert vectors["cases"] == vectors["edge_cases"] == len(cases) > 5 and vectors["note"] == "" and 0 < vectors["bytes"] <= 3_000_000
    assert all(case["name"] in whole.words for case in cases)


def test_the_prediction_is_shown(whole, runtime_export):
    told = whole.table["prediction"]
    x, y, z = runtime_export.manifest["grid"]["size_xyz"]
    assert sum(told["voxels"].values()) == x * y * z
    assert "data:image/png;base64,iVBOR" in whole.page and f"Frame {told['frame']}" in whole.words


def test_nothing_is_fetched_from_elsewhere(whole):
    assert not re.search(r"(?:src|href|action)=\"(?!data:|#)", whole.page) and "url(" not in whole.page
    assert "Content-Security-Policy" in whole.page


def test_the_same_file_gives_the_same_bytes(runtime_export, tmp_path):
    first, second = (dossier(runtime_export.model, tmp_path / name, "--no-run") for name in "ab")
    assert (first.page, first.text) == (second.page, second.text)
    assert first.table["prediction"] is None and first.table["precision"]["hazards"] is None
    assert first.table["untold"] == {"prediction": "left out by --no-run", "hazards": "left out by --no-run"}
    assert "without prediction: left out by --no-run" in first.ran.out and "What it predicts" in first.words
    assert "occport vectors " in first.words and first.table["operators"]["vectors"] is None


def test_standard_operators_have_no_contracts(standard_export, tmp_path):
    made = dossier(standard_export.model, tmp_path, "--no-run")
    assert made.ran.status == 0 and list(made.table["untold"]) == ["operators", "prediction", "hazards"] and made.table["operators"] is None
    assert "uses standard operators only" in made.words and "without operators: custom operators of" in made.ran.out


def test_a_file_without_its_manifest(runtime_export, tmp_path):
    model = shutil.copy(runtime_export.model, tmp_path / "other.onnx")
    made = dossier(Path(model), tmp_path / "out", "--dialect", "dl")
    assert made.ran.status == 0, made.ran.err
    assert set(made.table["untold"]) == {"verification", "prediction", "hazards"} and made.table["about"]["export"] is None
    assert "weights, frame and checks are not known" in made.words and "Not known to be verified" in made.words
    assert made.table["cost"]["total"]["macs"] > 0 and "--dialect dl" in made.table["operators"]["vectors_command"]
    assert_refused(run_cli("dossier", model, "-o", tmp_path / "no"), "dialect of")
    assert not (tmp_path / "no").exists()


def test_a_changed_file_is_called_changed(runtime_export, tmp_path):
    model = copied(runtime_export, tmp_path)
    with model.open("ab") as file:
        file.write(b"\x32\x01x")  # a doc_string of one letter
    manifest = json.loads(model.with_suffix(".json").read_text())
    made = dossier(model, tmp_path / "out", "--no-run")
    assert made.ran.status == 1 and "the file is not what was verified: changed" in made.ran.out
    assert "Not the file that was verified" in made.words and made.table["verification"]["verdict"] == "changed"
    assert made.table["verification"]["checks"] == manifest["verification"]


def test_hostile_words_and_numbers_in_a_manifest(runtime_export, tmp_path):
    model = copied(runtime_export, tmp_path)
    manifest = json.loads(model.with_suffix(".json").read_text())
    manifest["verification"] += [
        {"name": EVIL, "passed": False, "detail": EVIL, "where": EVIL, "figures": {"max_abs": float("nan"), "agreement": 0.5}},
        {},
    ]
    manifest["frame"]["described"] = manifest["classes"][1] = EVIL
    manifest["dialect"]["guesses"][0]["what"] = EVIL
    write_json(model.with_suffix(".json"), manifest)
    made = dossier(model, tmp_path / "out", "--no-run")
    assert made.ran.status == 1 and made.table["verification"]["verdict"] == "failed"
    assert "<script>alert" not in made.page and made.page.count("<script>") == 1 and EVIL in made.words
    assert made.table["verification"]["checks"][-2]["figures"]["max_abs"] is None


def test_a_frame_that_is_gone_is_told(runtime_export, tmp_path):
    model = copied(runtime_export, tmp_path)
    manifest = json.loads(model.with_suffix(".json").read_text())
    manifest["frame"]["spec"] = str(tmp_path / "gone.json")
    write_json(model.with_suffix(".json"), manifest)
    made = dossier(model, tmp_path / "out")
    assert made.ran.status == 0 and list(made.table["untold"]) == ["prediction", "hazards"]
    assert "without hazards: frame " in made.ran.out
    assert made.words.count("expected the frame of the export, got none; give --frame") == 2
    assert made.table["precision"]["hazards"] is None and "gone.json" in made.table["precision"]["hazards_reason"]


def test_what_holds_for_a_way_stands_once(whole):
    ways = whole.table["precision"]["hazards"]["geometry"]
    text = re.search(r"<caption>The projection in 16 bits.*?</table>", whole.page, re.DOTALL)[0]
    assert text.count("<tr>") == 1 + len(ways) == 3
    text = re.search(r"<caption>Voxels seen by cameras.*?</table>", whole.page, re.DOTALL)[0]
    assert text.count("<tr>") == 1 + sum(len(way["levels"]) for way in ways) == 7


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(whole, tmp_path, width):
    path = Path(shutil.copy(whole.path, tmp_path))
    seen = looked_at(path, width, "[document.images.length, [...document.images].every((one) => one.naturalWidth > 300)]")
    assert_fine(seen, width)
    assert seen.answer == [2, True]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_no_column_of_the_hazards_is_cut(whole, tmp_path):
    path = Path(shutil.copy(whole.path, tmp_path))
    region = "document.querySelector('.scroll[aria-label^=\"What half precision\"]')"
    seen = looked_at(path, 1400, f"[{region}.scrollWidth, {region}.clientWidth]")
    assert seen.answer[0] <= seen.answer[1]
