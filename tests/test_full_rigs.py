"""One dl file at full size, many rigs: PyTorch's labels from the same file, or a `dropped` that is right. Minutes, 8 GiB."""

import numpy as np
import pytest
import torch

from occport.compare import compare, compare_labels
from occport.config import read_config
from occport.export.follow import level_points, rigs
from occport.export.graph_files import write_graphs
from occport.export.request import Request, load_input, make_spec
from occport.export.subject import Subject
from occport.export.verify import ATOL, NOISE, RTOL
from occport.export.weights import load_model
from occport.frames.visibility import hits, overflow
from reference import CONFIGS, SHARED

FRAME = SHARED / "data/nuscenes_frame/frame.json"


@pytest.mark.full
def test_one_file_follows_every_rig(tmp_path):
    if not FRAME.is_file():
        pytest.skip("the nuScenes frame beside the project is absent")
    request = Request(read_config(CONFIGS / "surroundocc.py"), opset=17)
    loaded = load_input(request.config, str(FRAME))
    spec = make_spec(request, loaded)
    model, weights, _ = load_model(request.config, None, 0)
    files = write_graphs(model, spec, loaded.lidar2img, tmp_path, "full", weights)
    subject = Subject(spec, files["model"], None)
    with torch.no_grad():
        feats = model.features(torch.from_numpy(loaded.img))  # the same for every rig
        for name, rig in rigs(loaded.frame.lidar2img, spec.image_hw):
            matrix = rig[None].astype(np.float32)
            tables, dropped = model.tables(torch.from_numpy(matrix), spec.image_hw, spec.budgets)
            logits = model.pts_bbox_head(feats, tables)
            got = subject.run(loaded.img, matrix)
            counted = [
                overflow(hits(rig.astype(np.float32), spec.image_hw, level_points(level, spec.config)), budget.slots, budget.cameras)
                for level, budget in zip(spec.config.levels, spec.budgets, strict=True)
            ]
            np.testing.assert_array_equal(got["dropped"], dropped.numpy(), err_msg=name)
            if name in ("all cameras facing one way", "lenses four times as wide"):
                assert got["dropped"].sum() > 0, name
                # numpy projects in float64: a voxel on an image border may fall on the other side
                np.testing.assert_allclose(got["dropped"][0], counted, atol=3, err_msg=name)
            else:
                assert not got["dropped"].any(), name
            for scale, want in enumerate(logits):
                close = compare(got[f"logits_scale{scale}"], want.numpy(), atol=ATOL, rtol=RTOL, row_axis=1)
                labels = compare_labels(got[f"labels_scale{scale}"], want.numpy(), noise=NOISE)
                print(f"{name}, scale {scale}: {close.describe()}; {labels.describe()}")
                assert close.passed and labels.passed, name
