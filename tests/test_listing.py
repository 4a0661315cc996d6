"""Which frames a text means, what they are called, what each wrong text is told; and that a dataset is parsed once."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.errors import FrameError
from occport.frames import infos as infos_file
from occport.frames.infos import count_infos, ground_truth_file, names_in_infos, read_infos
from occport.frames.listing import Entry, list_frames

SHARED = Path(__file__).resolve().parents[2] / "shared"


def frame_json(folder: Path, **content: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "frame.json"
    path.write_text(json.dumps({"cameras": {}, **content}))
    return path


def dataset(path: Path, infos: list[object]) -> Path:
    path.write_bytes(pickle.dumps({"infos": infos}))
    return path


@pytest.fixture
def five(tmp_path: Path) -> Path:
    return dataset(tmp_path / "infos.pkl", [{"token": f"t{number}", "cams": {}} for number in range(5)])


def names(spec: object) -> list[str]:
    return [entry.name for entry in list_frames(str(spec))]


def refused(spec: object) -> str:
    with pytest.raises(FrameError) as caught:
        list_frames(str(spec))
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_one_frame(tmp_path):
    path = frame_json(tmp_path / "a", token="first")
    assert list_frames(str(path)) == (Entry("first", str(path), None),)
    assert list_frames(str(tmp_path / "a")) == (Entry("first", str(path), None),)
    assert names(frame_json(tmp_path / "b")) == ["b"]  # the folder's name


def test_a_frame_that_names_its_ground_truth(tmp_path):
    path = frame_json(tmp_path / "a", token="first", occ_path="truth/x.pcd.bin.npy")
    assert list_frames(str(path)) == (Entry("x.pcd.bin", str(path), tmp_path / "a/truth/x.pcd.bin.npy"),)
    path = frame_json(tmp_path / "b", occ_path=str(tmp_path / "y.npy"))
    assert list_frames(str(path))[0].ground_truth == tmp_path / "y.npy"


def test_a_folder_of_frames(tmp_path):
    for name in ("f10", "f2", "f1", ".hidden"):
        frame_json(tmp_path / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "f1" / "frame.json").rename(tmp_path / "f1" / "kept.json")
    frame_json(tmp_path / "f1", token="my token")
    assert [(entry.name, entry.spec) for entry in list_frames(str(tmp_path))] == [
        ("my token", str(tmp_path / "f1/frame.json")), ("f10", str(tmp_path / "f10/frame.json")), ("f2", str(tmp_path / "f2/frame.json")),
    ]  # fmt: skip


def test_a_damaged_frame_of_a_folder_is_listed(tmp_path):
    """It fails when its turn comes, and does not stop the others; alone it is refused at once."""
    frame_json(tmp_path / "good")
    frame_json(tmp_path / "bad").write_text("{")
    frame_json(tmp_path / "odd", token=3)
    assert names(tmp_path) == ["bad", "good", "odd"]
    assert "bad/frame.json: expected a JSON file" in refused(tmp_path / "bad")
    assert "token: expected a non-empty text" in refused(tmp_path / "odd")


def test_frames_that_share_the_name_of_their_ground_truth_go_by_their_tokens(tmp_path):
    for name in "ab":
        frame_json(tmp_path / name, occ_path="occ.npy")
    frame_json(tmp_path / "c", token="third", occ_path="other.npy")
    assert names(tmp_path) == ["a", "b", "third"]
    assert [entry.ground_truth for entry in list_frames(str(tmp_path))] == [tmp_path / p for p in ("a/occ.npy", "b/occ.npy", "c/other.npy")]


def test_two_frames_of_one_name(tmp_path):
    for name in "ab":
        frame_json(tmp_path / name, token="copied")
    line = refused(tmp_path)
    assert "got 'copied' for" in line and "a/frame.json" in line and "b/frame.json" in line and "a token of its own" in line
    assert "a name for each" in refused(dataset(tmp_path / "infos.pkl", [{"token": "x"}, {"token": "x"}]))


@pytest.mark.parametrize(
    ("part", "numbers"),
    [
        ("", range(5)), (":0", [0]), (":4", [4]), (":007", None), (":1:3", [1, 2]), (":3:", [3, 4]), ("::2", [0, 1]), ("::", range(5)),
        (":0:5", range(5)),
    ],
)  # fmt: skip
def test_parts_of_a_dataset(five, part, numbers):
    if numbers is None:
        assert "frame 7 of" in refused(f"{five}{part}")
        return
    assert [(entry.name, entry.spec) for entry in list_frames(f"{five}{part}")] == [(f"t{n}", f"{five}:{n}") for n in numbers]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (":5", "expected 0 to 4, got 5"), (":2:2", "expected FROM:TO with 0 <= FROM < TO <= 5, got 2:2"), (":0:6", "got 0:6"),
        (":3:1", "got 3:1"), (":5:", "got 5:5; frames count from 0"), (":", "whole numbers from 0 after the colon"),
        (":a", "whole numbers"), (":-1", "whole numbers"), (":1:2:3", "whole numbers"), (":1:2 ", "whole numbers"),
        (":" + "9" * 30, "whole numbers"),
    ],
)  # fmt: skip
def test_parts_that_are_none(five, part, message):
    assert message in refused(f"{five}{part}")


def test_names_in_a_dataset(tmp_path):
    """As upstream names its results: after the ground truth; a frame has one name whatever the range."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "occ").mkdir()
    (tmp_path / "occ" / "second.pcd.bin.npy").touch()
    truths = [{"occ_path": "./occ/first.pcd.bin.npy", "token": "x"}, {"occ_path": "occ/second.pcd.bin.npy"}]
    path = dataset(tmp_path / "deep" / "infos.pkl", [*truths, {"token": "third"}, 7, {"token": 3}])
    assert names(path) == ["first.pcd.bin", "second.pcd.bin", "third", "frame_000003", "frame_000004"]
    assert names(f"{path}:1") == ["second.pcd.bin"]
    found = [entry.ground_truth for entry in list_frames(str(path))]
    assert found == [tmp_path / "deep/occ/first.pcd.bin.npy", tmp_path / "occ/second.pcd.bin.npy", None, None, None]


def test_names_fit_for_files(tmp_path):
    tokens = ["a/b", "..", ".hidden", "-rf", "x" * 300, "日本" * 50, "c:d*", "end."]
    listed = names(dataset(tmp_path / "infos.pkl", [{"token": token} for token in tokens]))
    assert listed == ["a_b", "__", "_hidden", "_rf", "x" * 200, ("日本" * 50)[:66], "c_d_", "end_"]


@settings(deadline=None, max_examples=60)
@given(token=st.text(min_size=1))
def test_wild_tokens_make_files(tmp_path_factory, token):
    folder = tmp_path_factory.mktemp("wild")
    (name,) = names(dataset(folder / "infos.pkl", [{"token": token}]))
    place = folder / f"{name}.npz"
    place.touch()
    assert place.parent == folder and place in folder.iterdir() and not name.startswith(".")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "got an empty text"), ("nowhere", "got no such file or folder"), ("nowhere/infos.pkl", "got no such file or folder"),
        ("nowhere/infos.pkl:3", "nowhere/infos.pkl: expected a readable file"), ("a\0b", "expected a frame.json"),
        ("x" * 5000, "File name too long"),
    ],
)  # fmt: skip
def test_texts_that_mean_nothing(spec, message):
    assert message in refused(spec)


def test_folders_without_frames(tmp_path):
    assert "expected a frame.json in it, or in its folders, got none; give a frame.json, a folder" in refused(tmp_path)
    dataset(tmp_path / "infos.pkl", [{}])
    assert f"got none; give {tmp_path / 'infos.pkl'}" in refused(tmp_path)


def test_a_dataset_file_with_code_in_it(tmp_path):
    path = tmp_path / "infos.pkl"
    path.write_bytes(b"cbuiltins\nexec\n(S'raise SystemExit(3)'\ntR.")
    assert "refused, it asks for builtins.exec" in refused(path)


def test_the_real_frame():
    folder = SHARED / "data" / "nuscenes_frame"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/nuscenes_frame beside this checkout: the real frame is there")
    assert list_frames(str(folder / "infos.pkl")) == (Entry("occ", f"{folder / 'infos.pkl'}:0", folder.resolve() / "occ.npy"),)
    assert list_frames(str(folder)) == (Entry("ca9a282c9e77460f8360f564131a8af5", str(folder / "frame.json"), None),)


def test_names_in_a_dataset_file(tmp_path):
    infos = [
        {"token": "a", "occ_path": "./occ/a.npy"}, {"token": np.str_("b")}, {"occ_path": np.array("c.npy")}, {"token": "", "occ_path": 3},
        {"token": "line\nbreak", "occ_path": None}, None, {},
    ]  # fmt: skip
    path = dataset(tmp_path / "infos.pkl", infos)
    assert names_in_infos(path) == [("a", "./occ/a.npy"), ("b", None), (None, "c.npy"), *[(None, None)] * 4]
    with pytest.raises(FrameError, match="at least one frame"):
        names_in_infos(dataset(path, []))


def test_where_ground_truth_is_looked_for(tmp_path, monkeypatch):
    """As for images: the nearest folder first."""
    monkeypatch.chdir(tmp_path)
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    path = deep / "infos.pkl"
    assert ground_truth_file("occ/x.npy", path) == deep / "occ/x.npy"  # nowhere: the first place
    for place in (tmp_path, deep.parent, deep):
        (place / "occ").mkdir()
        (place / "occ" / "x.npy").touch()
        assert ground_truth_file("./occ/x.npy", path) == place / "occ/x.npy"
    assert ground_truth_file("/elsewhere/x.npy", path) == Path("/elsewhere/x.npy")


@pytest.fixture
def parses(monkeypatch) -> list[Path]:
    """The files that have been parsed; nothing is kept from other tests."""
    monkeypatch.setattr(infos_file, "_last", {})
    plain, calls = infos_file.read_pickle, []

    def counted(path: Path) -> object:
        calls.append(path)
        return plain(path)

    monkeypatch.setattr(infos_file, "read_pickle", counted)
    return calls


def settled(path: Path, infos: list[object], nanoseconds: int = 10**18) -> Path:
    """A dataset file that was written long ago."""
    dataset(path, infos)
    os.utime(path, ns=(nanoseconds, nanoseconds))
    return path


def test_a_dataset_is_parsed_once(tmp_path, parses, monkeypatch):
    path = settled(tmp_path / "infos.pkl", [{"token": "a", "cams": {}, "sweeps": [1] * 10}, {"token": "b"}, 3])
    monkeypatch.chdir(tmp_path)
    assert (count_infos(path), len(names_in_infos(path)), names(path)) == (3, 3, ["a", "b", "frame_000002"])
    for index in range(3):  # as `load_frame` goes through it
        with pytest.raises(FrameError, match=f"^infos.pkl:{index}: cams: expected"):
            read_infos(Path("infos.pkl"), index)
    assert len(parses) == 1
    (kept,) = infos_file._last.values()
    assert kept == [{"token": "a", "cams": {}}, {"token": "b"}, 3]  # without the sweeps, which are most of such a file


def test_a_changed_file_is_read_again(tmp_path, parses):
    path = tmp_path / "infos.pkl"
    assert names(settled(path, [{"token": "a"}])) == ["a"]
    assert names(settled(path, [{"token": "a"}, {"token": "b"}])) == ["a", "b"]  # another size, the same time
    assert names(settled(path, [{"token": "a"}, {"token": "B"}], 10**18 + 1)) == ["a", "B"]  # the same size, another time
    other = settled(tmp_path / "other.pkl", [{}])
    assert (count_infos(other), count_infos(path), count_infos(path), len(parses)) == (1, 2, 2, 5)


def test_a_file_that_was_just_written_is_not_kept(tmp_path, parses):
    """It might be written again within one tick of the clock that its time is taken from."""
    path = dataset(tmp_path / "infos.pkl", [{}])
    assert (count_infos(path), count_infos(path), len(parses)) == (1, 1, 2)


def test_a_file_that_is_gone_or_damaged_is_not_remembered(tmp_path, parses):
    path = settled(tmp_path / "infos.pkl", [{}])
    assert count_infos(path) == 1
    path.unlink()
    for content, message in [(None, "No such file"), (b"\x80\x04", "damaged"), (b"\x80\x04", "damaged")]:
        if content:
            path.write_bytes(content)
            os.utime(path, ns=(10**18, 10**18))
        with pytest.raises(FrameError, match=message):
            count_infos(path)
