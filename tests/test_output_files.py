"""Files that flags name: whole or not at all, each once, and what is no file is written to, not replaced."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from occport.errors import ExportError
from occport.output_files import try_files, write_file


def test_a_file_is_put_in_place_as_a_whole(tmp_path):
    path = tmp_path / "new/folder/a.json"
    write_file("--json", path, "ä")
    assert path.read_text(encoding="utf-8") == "ä"
    write_file("--json", path, b"b")
    assert path.read_bytes() == b"b" and [one.name for one in path.parent.iterdir()] == ["a.json"]


def test_trying_writes_nothing(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("old")
    try_files([("--csv", tmp_path / "new"), ("--json", kept), ("--html", None)])
    assert [one.name for one in tmp_path.iterdir()] == ["kept"] and kept.read_text() == "old"


def test_one_file_for_two_flags_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"--json .*: expected another file than that of --csv, got the same"):
        try_files([("--csv", tmp_path / "a"), ("--json", tmp_path / "x/../a")])
    try_files([("--csv", Path("/dev/null")), ("--json", Path("/dev/null"))])


def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    write_file("--csv", pipe, None)
    reader.start()
    write_file("--csv", pipe, "through")
    reader.join()
    assert got == [b"through"] and pipe.is_fifo()
    write_file("--csv", Path("/dev/null"), "gone")
    assert Path("/dev/null").is_char_device()


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ExportError, match="expected a file to write, got a folder"):
        write_file("--csv", tmp_path, "x")
