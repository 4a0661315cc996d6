"""A reader's own frame for the documents' commands: images of tiny.py's cameras, with a frame.json and a dataset file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from occport.frames.images import synthetic_images
from occport.frames.rig import nuscenes_like_rig

TOKEN = "ca9a282c9e77460f8360f564131a8af5"  # the name of the frame in the README's output
TINY_HW = (60, 96)  # of tiny.py's images, before padding


def write_frames(folder: Path) -> None:
    """A frame of tiny.py's cameras, as frame.json and as a dataset file."""
    names, rig = nuscenes_like_rig(4, *TINY_HW)
    images = synthetic_images(4, *TINY_HW, seed=0)
    table: dict[str, Any] = {"token": TOKEN, "cameras": {}}
    cams = {}
    for name, matrix, image in zip(names, rig, images, strict=True):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{name}.png")
        table["cameras"][name] = {"file": f"{name}.png", "lidar2img": matrix.tolist()}
        cams[name] = {"data_path": f"{name}.png", "cam_intrinsic": np.eye(3), "lidar2cam": matrix}  # the product is all that counts
    (folder / "frame.json").write_text(json.dumps(table))
    (folder / "infos.pkl").write_bytes(pickle.dumps({"infos": [{"token": TOKEN, "cams": cams}]}))
