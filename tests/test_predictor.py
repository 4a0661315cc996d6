"""From a frame to labels: PyTorch and every form of exported file say the same, and what cannot be a frame is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from exporting import MICRO, Exported, Network
from occport.config import read_config
from occport.errors import FrameError, UserError
from occport.export.weights import Weights
from occport.frames.frame import NUSCENES_CAMERAS, Frame
from occport.frames.images import preprocess, synthetic_images
from occport.frames.rig import nuscenes_like_rig, turned
from occport.model.surroundocc import build_model
from occport.use.predictor import Predictor
from occport.voxels.grid import Grid
from reference import load_case, recipe, reference_model

HW = (60, 96)


def frame(seed: int = 5, degrees: float = 0.0) -> Frame:
    """Four cameras of the tiny network, with images and a turn of their own."""
    names, rig = nuscenes_like_rig(4, *HW)
    return Frame(f"frame{seed}", names, synthetic_images(4, *HW, seed), turned(rig, degrees), "made up")


def direct(model: torch.nn.Module, some: Frame) -> torch.Tensor:
    """The network's finest logits (classes, X, Y, Z), without the predictor."""
    image = model.config.image
    img = preprocess(some.images, image.mean, image.std, image.to_rgb, image.size_divisor)
    with torch.no_grad():
        return model(torch.from_numpy(img), torch.from_numpy(some.lidar2img[None].astype(np.float32)))[-1][0]


@pytest.fixture(scope="module")
def predictor(tiny_network: Network) -> Predictor:
    """In PyTorch."""
    return Predictor(tiny_network.model)


def test_labels_are_the_networks_own(tiny_network, predictor):
    some = frame(degrees=20)
    occupancy = predictor.predict(some)
    want = direct(tiny_network.model, some).argmax(0).numpy()
    assert occupancy.labels.dtype == np.uint8 and occupancy.labels.shape == (16, 24, 8)
    assert np.array_equal(occupancy.labels, want) and len(np.unique(want)) > 3
    assert (occupancy.name, occupancy.probabilities, occupancy.notes) == ("frame5", None, ())
    assert occupancy.class_names == predictor.config.class_names and occupancy.class_names[3] == "car"
    assert occupancy.grid == predictor.grid == Grid((16, 24, 8))
    assert len(occupancy.points()) == np.count_nonzero(want)


def test_without_semantics():
    config = replace(read_config(MICRO), use_semantic=False, num_classes=1)
    torch.manual_seed(0)
    model = build_model(config)
    names, rig = nuscenes_like_rig(6, 64, 96)
    some = Frame("one", names, synthetic_images(6, 64, 96, 1), rig, "")
    predictor = Predictor(model)
    occupancy = predictor.predict(some)
    probabilities = direct(model, some)[0].sigmoid().numpy()
    assert occupancy.class_names == predictor.class_names == ("occupied",)
    assert occupancy.probabilities.dtype == np.float32 and np.abs(occupancy.probabilities - probabilities).max() < 1e-5
    assert np.array_equal(occupancy.labels, occupancy.probabilities > 0.5) and occupancy.labels.dtype == np.uint8
    assert 0 < occupancy.labels.mean() < 1


@pytest.mark.parametrize("case", ["micro_sem", "micro_blind", "micro_nosem"])
def test_labels_of_the_original(case):
    """The very images and weights that the original was given, through the whole of the predictor."""
    fields = load_case(case)
    height, width = (int(size) for size in fields["hw"])
    images = recipe().images_u8(int(fields["seed"]), 1, 6, height, width)[0]
    occupancy = Predictor(reference_model(case))(images, fields["lidar2img"][0])
    if case == "micro_nosem":
        want = 1 / (1 + np.exp(-fields["occ_3"][0, 0].astype(np.float64)))
        assert np.abs(occupancy.probabilities - want).max() < 1e-5
    else:
        differing = occupancy.labels != fields["argmax_3"][0]
        second, first = np.sort(fields["occ_3"][0], axis=0)[-2:]
        assert np.count_nonzero(differing) <= 1 and (first - second)[differing].max(initial=0) < 1e-4  # a tie within rounding
    assert occupancy.notes == ((f"no voxel is seen by {NUSCENES_CAMERAS[3]}",) if case == "micro_blind" else ())


@pytest.mark.parametrize("kind", ["runtime_export", "functions_export", "standard_export", "tables_export"])
def test_files_say_the_same(kind, request, predictor):
    made: Exported = request.getfixturevalue(kind)
    file = Predictor(made.model)
    assert (file.config, file.grid, file.class_names) == (predictor.config, predictor.grid, predictor.class_names)
    for some in (frame(), frame(6, degrees=33)):
        got, want = file.predict(some), predictor.predict(some)
        assert (got.labels == want.labels).mean() > 0.999 and got.notes == () and got.labels.dtype == np.uint8
        assert (got.name, got.grid, got.class_names) == (want.name, want.grid, want.class_names)


def test_fixed_file_says_the_same_for_its_rig_only(fixed_export, predictor):
    file = Predictor(str(fixed_export.model))
    assert (file.predict(frame(7)).labels == predictor.predict(frame(7)).labels).mean() > 0.999
    with pytest.raises(FrameError) as caught:
        file.predict(frame(7, degrees=2))
    assert str(caught.value) == (
        f"calibration of frame7: expected the one that is baked into {fixed_export.model.name} (calibration fixed), got another for every "
        "camera; export with --calibration runtime or tables for a rig that may change"
    )


def test_arrays_lists_and_paths_are_the_same(tmp_path, predictor):
    some = frame()
    want = predictor.predict(some).labels
    paths = []
    for number, image in enumerate(some.images):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image[:, :, ::-1]).save(paths[-1])
    calibration = some.lidar2img
    forms = (some.images, list(some.images), paths, tuple(str(path) for path in paths))
    for images in forms:
        occupancy = predictor(images, calibration, name="mine")
        assert np.array_equal(occupancy.labels, want) and occupancy.name == "mine"
    for other in (calibration.tolist(), torch.from_numpy(calibration), calibration.astype(np.float32)):
        assert (predictor(some.images, other).labels == want).mean() > 0.999
    assert predictor(some.images, calibration).name == "frame"


def cut(index: int) -> Callable[[np.ndarray], object]:
    return lambda images: images[:index]


BAD_IMAGES: dict[str, tuple[Callable[[np.ndarray], object], str]] = {
    "too few": (cut(3), r"images of frame: expected \(4, H, W, 3\) uint8, channels B, G, R, got an array of shape \(3, 60, 96, 3\)"),
    "floats": (lambda images: images / 255, r"images of frame: expected \(4, H, W, 3\) uint8, .* got an array .* and type float64"),
    "channels first": (lambda images: images.transpose(0, 3, 1, 2), r"got an array of shape \(4, 3, 60, 96\)"),
    "no pixels": (lambda images: images[:, :0], r"got an array of shape \(4, 0, 96, 3\)"),
    "one path": (lambda images: "a.png", r"images: expected an array \(N, H, W, 3\), or a list of 4 arrays or paths, got 'a.png'"),
    "nothing": (lambda images: None, "images: expected an array .*, got nothing"),
    "too many in a list": (lambda images: [*images, images[0]], "images: expected 4, one for each camera, got 5"),
    "unread image": (lambda images: [*images[:3], None], r"image of CAM_3: expected \(H, W, 3\) uint8, channels B, G, R, got nothing"),
    "grey": (lambda images: list(images[..., 0]), r"image of CAM_0: expected \(H, W, 3\) uint8.*got an array of shape \(60, 96\)"),
    "sizes": (lambda images: [*images[:3], images[3][:50]], r"image of CAM_3: expected \(60, 96, 3\), as of CAM_0, got \(50, 96, 3\)"),
    "missing file": (lambda images: ["no.png"] * 4, "image no.png: expected a readable image, got No such file"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_images_that_cannot_be(name, predictor):
    change, message = BAD_IMAGES[name]
    some = frame()
    with pytest.raises(FrameError, match=message):
        predictor(change(some.images), some.lidar2img)


BAD_CALIBRATIONS: dict[str, tuple[Callable[[np.ndarray], object], str]] = {
    "transposed": (lambda rig: rig.transpose(0, 2, 1), r"lidar2img of CAM_0: expected the last row \[0, 0, 0, 1\].*the matrix transposed"),
    "batch": (lambda rig: rig[None], r"frame: lidar2img: expected shape \(4, 4, 4\), got shape \(1, 4, 4, 4\)"),
    "3x4": (lambda rig: rig[:, :3], r"expected shape \(4, 4, 4\), got shape \(4, 3, 4\)"),
    "text": (lambda rig: "rig", r"calibration: expected \(N, 4, 4\) numbers, got 'rig'"),
    "ragged": (lambda rig: [[1, 2], [3]], r"calibration: expected \(N, 4, 4\) numbers, got setting an array element"),
    "nan": (lambda rig: rig * np.nan, "lidar2img of CAM_0: expected finite float32 numbers, got nan"),
    "sees nothing": (lambda rig: rig - np.outer([0, 0, 1e6, 0], [0, 0, 0, 1]), "calibration of frame: .*got none that sees any"),
}


@pytest.mark.parametrize("name", BAD_CALIBRATIONS)
def test_calibrations_that_cannot_be(name, predictor):
    change, message = BAD_CALIBRATIONS[name]
    some = frame()
    with pytest.raises(FrameError, match=message):
        predictor(some.images, change(some.lidar2img))


def test_frames_that_cannot_be(predictor):
    names, rig = nuscenes_like_rig(6, *HW)
    with pytest.raises(FrameError, match=r"cameras of six: expected 4, got 6 \(CAM_FRONT, .*CAM_BACK_RIGHT\)"):
        predictor.predict(Frame("six", names, synthetic_images(6, *HW, 0), rig, ""))
    with pytest.raises(FrameError, match="name of the frame: expected a non-empty text of printable characters, got ''"):
        predictor(frame().images, frame().lidar2img, name="")


def test_a_blind_camera_is_noted(predictor, runtime_export):
    some = frame()
    rig = some.lidar2img.copy()
    rig[2, 2] *= -1
    rig[2, 2, 3] = -1000
    for network in (predictor, Predictor(runtime_export.model)):
        assert network.predict(replace(some, lidar2img=rig)).notes == ("no voxel is seen by CAM_2",)


def test_models_that_cannot_be(tiny_network):
    with pytest.raises(UserError, match=r"the model: expected a SurroundOcc network, or the path of an exported \.onnx file, got a value"):
        Predictor(torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match="execution provider 'CPU': expected an exported file, got a network in PyTorch; give its device"):
        Predictor(tiny_network.model, provider="CPU")
    for threads in (0, -1, True, 1.5):
        with pytest.raises(UserError, match="number of threads: expected a whole number, at least 1, got "):
            Predictor(tiny_network.model, threads=threads)
    model = build_model(tiny_network.model.config)
    with pytest.raises(UserError, match="the network: expected one in eval mode, got one in training mode; call its eval"):
        Predictor(model.train())
    with pytest.raises(UserError, match="the network's weights: expected float32, got float16; call its float"):
        Predictor(model.eval().half())


def test_not_a_number_is_no_label(tiny_network):
    model = build_model(tiny_network.model.config)
    with torch.no_grad():
        model.pts_bbox_head.occ[3].weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"scores that PyTorch float32, .* gives: expected finite numbers, got NaN or infinity in 52,224"):
        Predictor(model).predict(frame())


def test_who_it_is(tiny_network, predictor, runtime_export):
    weights = Weights(None, 3, "abc")
    seeded = Predictor(tiny_network.model, weights=weights)
    trained = Predictor(tiny_network.model, weights=Weights("a.pth", None, "0123456789abcdef"))
    assert (predictor.trained, seeded.trained, trained.trained) == (True, False, True)
    assert predictor.described == "PyTorch float32, weights as they were handed over"
    assert seeded.described == "PyTorch float32, weights seeded with 3"
    assert trained.described == "PyTorch float32, weights of a.pth (fingerprint 0123456789ab)"
    assert seeded.identity["weights"] == "abc" and seeded.identity["config"] == predictor.identity["config"]
    assert predictor.identity["kind"] == "torch" and predictor.identity["weights"] == runtime_export.manifest["weights"]["fingerprint"]
    other = replace(tiny_network.model.config, image=replace(tiny_network.model.config.image, mean=(0.0, 0.0, 0.0)))
    assert Predictor(build_model(other), weights=weights).identity != seeded.identity
    same = replace(tiny_network.model.config, name="other", notes=("a",))
    assert Predictor(build_model(same), weights=weights).identity == seeded.identity


def test_threads_of_the_process_are_put_back(tiny_network, predictor):
    before = torch.get_num_threads()
    some = frame()
    got = Predictor(tiny_network.model, threads=before + 1).predict(some)
    assert torch.get_num_threads() == before
    assert (got.labels == predictor.predict(some).labels).mean() > 0.999
