"""`occport diff` as a user runs it: names, formats, layouts, statuses, reports, and everything that can be wrong with dumps."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from exporting import assert_refused, contents, run_cli
from occport.bringup.diff.both import Both
from occport.bringup.diff.compare import Request, compare_dumps
from occport.bringup.diff.theirs import Theirs
from occport.bringup.dumps.index import read_index
from occport.errors import UserError
from occport.export.network_file import read_network
from occport.progress import NullProgress
from planting import as_read, changed_channel, copied, dumps, node_of

MARKS = ("stages", "*neck*")


@pytest.fixture(scope="module")
def golden(runtime_export, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("diff") / "golden"
    ran = run_cli("golden", runtime_export.model, "-o", folder, "--mark", *MARKS)
    assert ran.status == 0, ran.err
    return folder


@pytest.fixture
def theirs(golden, tmp_path) -> Path:
    """Dumps of a chip in fp16 with channels last, without a bug."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for entry in read_index(golden).tensors:
        array = np.load(golden / entry.file)
        if array.dtype == np.float32 and entry.stage not in ("tables", ""):
            array = np.moveaxis(array, 1, -1).astype(np.float16) if entry.axes == ("A", "C", "H", "W") else array.astype(np.float16)
        np.save(folder / entry.file, array)
    return folder


def statuses(table) -> dict[str, str]:
    return {tensor["name"]: tensor["status"] for tensor in table["tensors"]}


def compared(golden, theirs, *flags: object):
    out = theirs.parent / "d.json"
    ran = run_cli("diff", golden, theirs, "--json", out, *flags)
    return ran, json.loads(out.read_text()) if out.is_file() else None


def test_golden_against_itself_is_equal(golden):
    ran, table = compared(golden, golden)
    assert ran.status == 0 and table["good"] and set(statuses(table).values()) == {"equal"}
    assert "nothing differs beyond" in ran.out
    (golden.parent / "d.json").unlink()


def test_fp16_and_another_layout_are_explained_and_told(golden, theirs):
    ran, table = compared(golden, theirs, "--csv", theirs.parent / "d.csv")
    assert ran.status == 0, ran.out
    assert set(statuses(table).values()) <= {"equal", "explained"} and "explained" in statuses(table).values() and table["blamed"] == []
    assert any("channels last" in remark for remark in table["remarks"])
    rows = {row["tensor"]: row for row in csv.DictReader((theirs.parent / "d.csv").open())}
    assert rows.keys() == statuses(table).keys()
    tensor = next(one for one in table["tensors"] if one["status"] == "explained")
    assert float(rows[tensor["name"]]["max_abs"]) == tensor["figures"]["max_abs"] > 0 and tensor["explained_ratio"] <= 1
    assert rows[tensor["name"]]["dtype"] == tensor["their_dtype"] == "float16"


def test_a_wrong_channel_is_blamed_on_its_conv_and_the_page_says_so(golden, theirs, runtime_export):
    file = copied(read_network(runtime_export.model, None, standard=True))
    conv = node_of(file, "img_neck_lateral_convs_0_conv", "Conv")
    changed_channel(file, conv, 3, 1.5)
    index = read_index(golden)
    for name, array in dumps(file, [entry.name for entry in index.tensors]).items():
        np.save(theirs / index.entry(name).file, as_read(array, "float32" if index.entry(name).stage in ("tables", "") else "float16"))
    ran, table = compared(golden, theirs, "--html", theirs.parent / "d.html")
    assert ran.status == 1
    (first, *_) = table["blamed"]
    assert first["nodes"] == [conv.name] and "channel 3" in first["place"] and "first to blame" in ran.out
    assert conv.name in (theirs.parent / "d.html").read_text()
    assert statuses(table)[conv.output[0]] == "differs"
    last = statuses(table)["labels_scale3"]
    assert last in ("equal", "explained")  # its own inputs explain it


def test_dumps_that_cannot_be_used_are_named_and_the_rest_compared(golden, theirs):
    index = read_index(golden)
    names = [entry.name for entry in index.tensors if "neck" in entry.name]
    (theirs / f"{names[0]}.npy").rename(theirs / f"{names[0]}_out.npy")
    (theirs / f"{names[1]}.npy").write_bytes(b"\x93NUMPY nonsense")
    short = (theirs / f"{names[4]}.npy").read_bytes()
    (theirs / f"{names[4]}.npy").write_bytes(short[: len(short) // 2])
    np.save(theirs / f"{names[2]}.npy", np.zeros((3, 3), np.float32))
    nan = np.load(theirs / f"{names[3]}.npy")
    nan.reshape(-1)[5] = np.nan
    np.save(theirs / f"{names[3]}.npy", nan)
    np.save(theirs / "somebody_elses.npy", np.zeros(3))
    ran, table = compared(golden, theirs)
    found = statuses(table)
    assert ran.status == 1
    assert [found[name] for name in names[:5]] == ["missing", "unreadable", "unreadable", "differs", "unreadable"]
    notes = {tensor["name"]: tensor["note"] for tensor in table["tensors"]}
    assert f"no dump of this name; did they call it '{names[0]}_out'? tell it with --map" in notes[names[0]]
    assert "could only read" in notes[names[4]] and "shape [3, 3], where ours is" in notes[names[2]]
    assert next(tensor for tensor in table["tensors"] if tensor["name"] == names[3])["figures"]["not_numbers"] == 1
    assert any(f"2 of their tensors belong to none of ours: {names[0]}_out, somebody_elses" in remark for remark in table["remarks"])
    assert "1 nan or inf, the first at camera 0, channel 5" in ran.out and names[1] in ran.out
    assert sum(status in ("equal", "explained") for status in found.values()) == len(found) - 5


def test_a_map_tells_names_shapes_and_scales(golden, theirs):
    index = read_index(golden)
    entry = next(entry for entry in index.tensors if "neck" in entry.name and entry.role == "inner")
    array = np.load(golden / entry.file)
    scale = float(np.abs(array).max()) / 127
    np.rint(array / scale).astype(np.int8).tofile(theirs / "t17.bin")
    (theirs / entry.file).unlink()
    (theirs.parent / "m.json").write_text(json.dumps({entry.name: {"theirs": "t17", "dtype": "int8", "scale": scale}}))
    ran, table = compared(golden, theirs, "--map", theirs.parent / "m.json")
    tensor = next(one for one in table["tensors"] if one["name"] == entry.name)
    assert ran.status == 0, ran.out
    assert tensor["their_dtype"] == "int8" and tensor["figures"]["max_abs"] <= scale * 0.51
    (theirs.parent / "m.json").write_text(json.dumps({entry.name: "t17"}))
    ran, table = compared(golden, theirs, "--map", theirs.parent / "m.json", "--scale", f"{entry.name}={scale}")
    assert ran.status == 0, ran.out


def test_every_container_is_read(golden, tmp_path):
    index = read_index(golden)
    arrays = {entry.name: np.load(golden / entry.file) for entry in index.tensors}
    np.savez(tmp_path / "all.npz", **arrays)
    assert run_cli("diff", golden, tmp_path / "all.npz").status == 0
    for form in ("pb", "raw", "polygraphy"):
        folder = tmp_path / form
        assert run_cli("golden", golden / index.place, "-o", folder, "--mark", *MARKS, "--format", form).status == 0
        (folder / "index.json").unlink()  # so that the files speak for themselves
        ran, table = compared(golden, folder)
        assert ran.status == 0 and set(statuses(table).values()) == {"equal"}, (form, ran.out)


def test_names_that_file_systems_have_changed_are_found(golden, theirs):
    for number, path in enumerate(sorted(theirs.iterdir())):
        path.rename(path.with_name(f"{number:04d}_{path.name.upper()}"[:-4] + ".npy"))
    assert run_cli("diff", golden, theirs).status == 0


def test_two_files_of_one_name_are_said(golden, theirs):
    shutil.copy(theirs / "labels_scale0.npy", theirs / "01_labels_scale0.npy")
    (theirs / "labels_scale0.npy").rename(theirs / "02_labels_scale0.npy")
    ran, table = compared(golden, theirs)
    note = next(one["note"] for one in table["tensors"] if one["name"] == "labels_scale0")
    assert ran.status == 1 and "01_labels_scale0.npy and 02_labels_scale0.npy could both be it; say which with --map" in note


def test_one_voxel_more_is_matched_and_blames_nobody(golden, theirs):
    """Their camera 1 sees one voxel less: all later slots are one place farther to the front, and rows with them."""
    index = read_index(golden)
    name = index.slots[1]
    table = np.load(golden / index.entry(name).file)
    slot = 4
    assert (np.diff(table[1, : slot + 3]) > 0).all()
    lost = table.copy()
    lost[1, slot:-1] = table[1, slot + 1 :]
    np.save(theirs / index.entry(name).file, lost)
    both = Both(golden, theirs, {})
    assert both.index.slots[1] == name
    result = compare_dumps(Request(golden, theirs), NullProgress())
    assert any("1 voxels of cameras are in one table only (only ours: camera 1" in remark for remark in result.remarks)
    rows = next(tensor for tensor in result.tensors if tensor.entry.name == name)
    assert rows.figures.unmatched == 1 and rows.figures.max_abs == 0


def test_without_the_model_dtype_and_depth_judge(golden, theirs, tmp_path):
    moved = tmp_path / "elsewhere/golden"
    shutil.copytree(golden, moved)
    ran, table = compared(moved, theirs)
    assert ran.status == 0, ran.out
    assert "by dtype and depth alone" in table["judged"] and any("give it with --model" in remark for remark in table["remarks"])


def test_what_cannot_be_is_refused_in_one_line(golden, theirs, runtime_export, standard_export, tmp_path):
    before = contents(tmp_path)
    assert_refused(run_cli("diff", golden), "THEIRS or --bisect CMD: expected one of them, got neither")
    assert_refused(run_cli("diff", golden, theirs, "--bisect", "x {model} {inputs} {outputs}"), "got both")
    assert_refused(run_cli("diff", tmp_path, theirs), "make one with `occport golden")
    assert_refused(run_cli("diff", golden, tmp_path / "none"), "no such file or folder")
    assert_refused(run_cli("diff", golden, theirs, "--model", standard_export.model), "the file that the golden tensors are from")
    assert_refused(run_cli("diff", golden, theirs, "--scale", "labels=0"), "NAME=SCALE")
    assert_refused(run_cli("diff", golden, theirs, "--scale", "labels_scale=2"), "did you mean 'labels_scale")
    assert_refused(run_cli("diff", golden, theirs, "--html", tmp_path), "got a folder")
    assert contents(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert_refused(run_cli("diff", golden, tmp_path / "empty"), "no such files in it")
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other/x.npy", np.zeros(2))
    assert_refused(run_cli("diff", golden, tmp_path / "other"), "tell their names with --map")
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match="write it again, or take it away"):
        Theirs(tmp_path / "bad.npz")


def test_golden_tensors_that_were_changed_are_refused(golden, theirs, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(golden, folder)
    file = next(entry.file for entry in read_index(folder).tensors if entry.dtype == "float32")
    np.save(folder / file, np.load(folder / file) * 1.5)
    assert_refused(run_cli("diff", folder, theirs), "expected the numbers that its hash is of, got others")
    table = json.loads((folder / "index.json").read_text())
    for key, value in (("dtype", "float99"), ("axes", ["A"]), ("stage", "level x")):
        odd = {**table, "tensors": [{**table["tensors"][2], key: value}]}
        (folder / "index.json").write_text(json.dumps(odd))
        assert_refused(run_cli("diff", folder, theirs), "expected what this occport writes")


def test_damaged_archives_and_odd_tables_do_not_end_the_comparison(golden, theirs, tmp_path):
    index = read_index(golden)
    (theirs / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    assert_refused(run_cli("diff", golden, theirs), "broken.npz")
    (theirs / "broken.npz").unlink()
    table = np.load(golden / index.entry(index.slots[0]).file).copy()
    table[0, 1] = -4801
    np.save(theirs / index.entry(index.slots[0]).file, table)
    ran, _ = compared(golden, theirs)
    assert ran.status == 1 and "Traceback" not in ran.err


def test_two_formats_of_one_tensor_are_said(golden, theirs):
    np.load(theirs / "labels_scale0.npy").tofile(theirs / "labels_scale0.bin")
    ran, table = compared(golden, theirs)
    note = next(one["note"] for one in table["tensors"] if one["name"] == "labels_scale0")
    assert ran.status == 1 and "labels_scale0.bin and labels_scale0.npy could both be it" in note
    (theirs.parent / "m.json").write_text(json.dumps({"labels_scale0": "labels_scale0.npy"}))
    ran, table = compared(golden, theirs, "--map", theirs.parent / "m.json")
    assert statuses(table)["labels_scale0"] == "equal"


def test_an_input_that_is_not_ours_is_named_with_its_colours(golden, theirs):
    image = np.load(golden / "img.npy")
    np.save(theirs / "img.npy", np.flip(image, 2))
    ran, table = compared(golden, theirs)
    assert ran.status == 1
    assert any("their input img is not golden's" in line and "reverse order (RGB for BGR?)" in line for line in table["remarks"])


def test_files_named_twice_and_flags_that_do_not_go_together(golden, theirs, tmp_path):
    same = tmp_path / "same.txt"
    assert_refused(run_cli("diff", golden, theirs, "--csv", same, "--json", same), "expected another file than that of --csv")
    refused = run_cli("diff", golden, "--bisect", "x {model} {inputs} {outputs}", "--scale", "a=1")
    assert_refused(refused, "--map and --scale")
    refused = run_cli("diff", golden, "--bisect", "x {model} {inputs} {outputs}", "--timeout", "inf")
    assert_refused(refused, "--timeout inf")
