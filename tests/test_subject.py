"""The written file on ONNX Runtime: one file for many rigs, and the parts of it that run alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from exporting import Exported, Network
from occport.errors import ModelFileError
from occport.export.follow import rigs
from occport.export.spec import from_json
from occport.export.subject import Subject, hit_values, part, runnable, trimmed
from occport.frames.images import preprocess, synthetic_images
from occport.frames.rig import turned


def subject_of(good: Exported) -> Subject:
    return Subject(from_json(good.manifest["spec"]), good.model, good.geometry)


@pytest.fixture(scope="module")
def runtime(runtime_export) -> Subject:
    return subject_of(runtime_export)


def other_images(network: Network, seed: int) -> np.ndarray:
    image = network.spec.config.image
    return preprocess(synthetic_images(4, *image.size, seed), image.mean, image.std, image.to_rgb, image.size_divisor)


def expected(network: Network, img: np.ndarray, lidar2img: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    with torch.no_grad():
        tables, dropped = network.model.tables(torch.from_numpy(lidar2img), network.spec.image_hw, network.spec.budgets)
        logits = network.model.logits(torch.from_numpy(img), tables)
    return [scale.numpy() for scale in logits], dropped.numpy()


def assert_agrees(subject: Subject, network: Network, img: np.ndarray, lidar2img: np.ndarray) -> dict[str, np.ndarray]:
    """ONNX Runtime gives what PyTorch gives, for logits, labels and `dropped`."""
    got = subject.run(img, lidar2img)
    logits, dropped = expected(network, img, lidar2img)
    for scale in range(4):
        assert np.isfinite(got[f"logits_scale{scale}"]).all()
        assert np.abs(got[f"logits_scale{scale}"] - logits[scale]).max() < 1e-4
        if f"labels_scale{scale}" in got:
            assert (got[f"labels_scale{scale}"] == logits[scale].argmax(1)).mean() > 0.999
    assert np.array_equal(got["dropped"], dropped)
    return got


def test_file_on_the_frame(runtime, tiny_network):
    got = assert_agrees(runtime, tiny_network, tiny_network.loaded.img, tiny_network.loaded.lidar2img)
    labels = [f"labels_scale{scale}" for scale in range(4)]
    assert got.keys() == {*labels, "dropped", *(f"logits_scale{scale}" for scale in range(4))}
    assert got["dropped"].tolist() == [[0, 0, 0]] and got["labels_scale3"].shape == (1, 16, 24, 8)
    assert len(np.unique(got["labels_scale3"])) > 3  # more than one answer to everything


@pytest.mark.parametrize("degrees", [-7.0, 1.5, 45.0, 180.0])
def test_one_file_for_turned_rigs(degrees, runtime, tiny_network):
    matrix = turned(tiny_network.loaded.frame.lidar2img, degrees)[None].astype(np.float32)
    got = assert_agrees(runtime, tiny_network, other_images(tiny_network, int(degrees) + 100), matrix)
    assert got["dropped"].tolist() == [[0, 0, 0]]


def test_one_file_for_every_camera_facing_one_way(runtime, tiny_network):
    one = np.repeat(tiny_network.loaded.lidar2img[:, :1], 4, axis=1)
    got = assert_agrees(runtime, tiny_network, tiny_network.loaded.img, one)
    assert (got["dropped"] > 0).all()  # four cameras on one voxel, with room for three


def test_one_file_for_a_blind_camera_and_for_a_blind_rig(runtime, tiny_network):
    blind = np.array([[80.0, 0, 48, 0], [0, 80.0, 30, 0], [0, 0, 1, -100], [0, 0, 0, 1]], np.float32)
    matrix = tiny_network.loaded.lidar2img.copy()
    matrix[0, 2] = blind
    assert_agrees(runtime, tiny_network, tiny_network.loaded.img, matrix)
    img = tiny_network.loaded.img
    all_blind = np.repeat(blind[None, None], 4, axis=1)
    got = assert_agrees(runtime, tiny_network, img, all_blind)
    again = runtime.run(other_images(tiny_network, 5), all_blind)
    scales = [f"logits_scale{scale}" for scale in range(3)]
    assert all(np.array_equal(got[name], again[name]) for name in scales)  # nothing is seen: the images have no part in it


def test_depth_zero_and_numbers_that_overflow_leave_no_nan(runtime, tiny_network):
    """A camera in a voxel's centre, and products that reach infinity and then NaN: such voxels count as unseen, in both runtimes."""
    centre = tiny_network.model.projection.points[:, 0].numpy()
    matrix = tiny_network.loaded.lidar2img.copy()
    matrix[0, 0, :3, 3] = -matrix[0, 0, :3, :3] @ centre
    matrix[0, 1] *= 1e33
    matrix[0, 2, 0] = 3e38
    got = assert_agrees(runtime, tiny_network, tiny_network.loaded.img, matrix)
    assert all(np.isfinite(array).all() for array in got.values())
    empty = runtime.hits(matrix)
    assert all((array >= 0).all() for array in empty.values())


def test_slots_of_a_blind_camera_are_empty(runtime, tiny_network):
    matrix = tiny_network.loaded.lidar2img.copy()
    matrix[0, 3, 2] *= -1  # looks the other way round
    matrix[0, 3, 2, 3] = -1000
    tables, _ = tiny_network.model.tables(torch.from_numpy(matrix), tiny_network.spec.image_hw, tiny_network.spec.budgets)
    hits = runtime.hits(matrix)
    assert hits["level0_slots"].reshape(4, 192)[3].any() == 0
    for level in range(3):
        assert np.array_equal(hits[f"level{level}_slots"].ravel(), tables[level].slots.numpy().ravel())
        assert np.array_equal(hits[f"level{level}_back"].ravel(), tables[level].back.numpy().ravel())


@pytest.mark.parametrize("kind", ["functions_export", "standard_export"])
def test_files_of_other_forms_follow_too(kind, request, tiny_network):
    subject = subject_of(request.getfixturevalue(kind))
    matrix = turned(tiny_network.loaded.frame.lidar2img, 30.0)[None].astype(np.float32)
    assert_agrees(subject, tiny_network, other_images(tiny_network, 7), matrix)


def test_tables_and_geometry_follow(tables_export, tiny_network):
    subject = subject_of(tables_export)
    for name, rig in rigs(tiny_network.loaded.frame.lidar2img, (64, 96)):
        matrix = rig[None].astype(np.float32)
        got = assert_agrees(subject, tiny_network, other_images(tiny_network, 8), matrix)
        assert "dropped" in got, name
    tables = subject.tables(tiny_network.loaded.lidar2img)
    want, _ = tiny_network.model.tables(torch.from_numpy(tiny_network.loaded.lidar2img), (64, 96), tiny_network.spec.budgets)
    assert np.array_equal(tables["level1_weight"], want[1].weight.numpy()) and np.array_equal(tables["level0_slots"], want[0].slots.numpy())


def test_fixed_file_needs_no_calibration(fixed_export, tiny_network):
    subject = subject_of(fixed_export)
    img = other_images(tiny_network, 9)
    got = subject.run(img, tiny_network.loaded.lidar2img)
    logits, _ = expected(tiny_network, img, tiny_network.loaded.lidar2img)
    assert all(np.abs(got[f"logits_scale{scale}"] - logits[scale]).max() < 1e-4 for scale in range(4))
    assert [value.name for value in subject.skeleton.graph.input] == ["img"] and "dropped" not in got
    other = subject.run(img, np.zeros((1, 4, 4, 4), np.float32))
    assert np.array_equal(other["logits_scale3"], got["logits_scale3"])


def test_stock_onnx_runtime_runs_a_file_with_functions(functions_export, tiny_network):
    """No help of ours: the file alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(functions_export.model), providers=["CPUExecutionProvider"])
    feeds = {"img": tiny_network.loaded.img, "lidar2img": tiny_network.loaded.lidar2img}
    labels = session.run(["labels_scale3"], feeds)[0]
    logits, _ = expected(tiny_network, feeds["img"], feeds["lidar2img"])
    assert (labels == logits[3].argmax(1)).mean() > 0.999


def test_stock_onnx_runtime_runs_a_standard_file(standard_export, tiny_network):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(standard_export.model), providers=["CPUExecutionProvider"])
    feeds = {"img": tiny_network.loaded.img, "lidar2img": tiny_network.loaded.lidar2img}
    assert np.array_equal(session.run(["dropped"], feeds)[0], [[0, 0, 0]])
    assert all(not node.domain for node in standard_export.skeleton.graph.node)


def test_runnable_copy_has_the_same_nodes_and_weights(runtime):
    proto = runnable(runtime.skeleton, runtime.spec)
    assert [node.SerializeToString() for node in proto.graph.node] == [node.SerializeToString() for node in runtime.skeleton.graph.node]
    assert [tensor.SerializeToString() for tensor in proto.graph.initializer] == [
        tensor.SerializeToString() for tensor in runtime.skeleton.graph.initializer
    ]
    assert {function.name for function in proto.functions} == {"ModulatedDeformConv2d", "MultiScaleDeformableAttnFunction"}
    assert not runtime.skeleton.functions and runtime.skeleton.ir_version == 6  # the file's own model is left alone
    added = [value.name for value in proto.graph.output][len(runtime.skeleton.graph.output) :]
    assert added == [f"logits_scale{scale}_zyx" for scale in range(4)]


def test_file_with_functions_is_run_as_it_is(functions_export):
    subject = subject_of(functions_export)
    proto = runnable(subject.skeleton, subject.spec)
    assert [item.SerializeToString() for item in proto.functions] == [item.SerializeToString() for item in subject.skeleton.functions]


def test_hit_values_are_what_the_first_layers_read(runtime):
    values = hit_values(runtime.skeleton, 3)
    assert list(values) == [f"level{level}_{field}" for level in range(3) for field in ("slots", "back")]
    made = {name for node in runtime.skeleton.graph.node for name in node.output}
    assert set(values.values()) <= made


def test_part_is_a_model_of_its_own(runtime):
    values = hit_values(runtime.skeleton, 3)
    proto = part(runtime.skeleton, list(values.values()))
    path = runtime.main.with_name("part.onnx")
    onnx.save(proto, path)
    onnx.checker.check_model(str(path), full_check=True)
    assert [value.name for value in proto.graph.input] == ["lidar2img"]
    assert "Conv" not in {node.op_type for node in proto.graph.node}
    assert sum(numpy_helper.to_array(tensor).nbytes for tensor in proto.graph.initializer if not tensor.external_data) < 100_000
    whole = [node.SerializeToString() for node in runtime.skeleton.graph.node]
    assert all(node.SerializeToString() in whole for node in proto.graph.node)


@pytest.mark.parametrize("kind", ["runtime_export", "functions_export", "standard_export", "tables_export"])
def test_only_some_outputs_are_run(kind, request, tiny_network):
    subject, loaded = subject_of(request.getfixturevalue(kind)), tiny_network.loaded
    whole = subject.run(loaded.img, loaded.lidar2img)
    got = subject.run_only(loaded.img, loaded.lidar2img, ["labels_scale3"])
    assert got.keys() == ({"labels_scale3", "dropped"} if kind == "tables_export" else {"labels_scale3"})
    assert all(np.array_equal(array, whole[name]) for name, array in got.items())
    logits = subject.run_only(loaded.img, loaded.lidar2img, ["logits_scale0"])["logits_scale0"]
    assert np.abs(logits - whole["logits_scale0"]).max() < 1e-5
    assert subject.open_only(["labels_scale3"]) is subject.open_only(["labels_scale3"])
    with pytest.raises(ModelFileError, match=r"output 'labels_scale4' of .*: expected one of labels_scale0, .*, got an unknown name"):
        subject.run_only(loaded.img, loaded.lidar2img, ["labels_scale4"])


def test_a_trimmed_copy_has_fewer_nodes(runtime):
    whole = runnable(runtime.skeleton, runtime.spec)
    proto = trimmed(runnable(runtime.skeleton, runtime.spec), ["labels_scale0"])
    assert [value.name for value in proto.graph.output] == ["labels_scale0"] and proto.functions == whole.functions
    nodes = [node.SerializeToString() for node in whole.graph.node]
    kept = [node.SerializeToString() for node in proto.graph.node]
    assert len(kept) < len(nodes) and kept == [node for node in nodes if node in set(kept)]
    assert {node.name for node in proto.graph.node if node.op_type == "ArgMax"} < {
        node.name for node in whole.graph.node if node.op_type == "ArgMax"
    }
    assert list(proto.graph.input) == list(whole.graph.input) and len(proto.graph.initializer) == len(whole.graph.initializer)


def test_provider_and_threads_reach_the_session(runtime_export, tiny_network):
    spec, loaded = from_json(runtime_export.manifest["spec"]), tiny_network.loaded
    subject = Subject(spec, runtime_export.model, None, provider="CPU", threads=1)
    assert subject.run_only(loaded.img, loaded.lidar2img, ["labels_scale3"])["labels_scale3"].shape == (1, 16, 24, 8)
    with pytest.raises(ModelFileError, match="execution provider 'none'"):
        Subject(spec, runtime_export.model, None, provider="none").open_only(["labels_scale3"])
    with pytest.raises(ModelFileError, match="number of threads: expected at least 1, got 0"):
        Subject(spec, runtime_export.model, None, threads=0).open_only(["labels_scale3"])
