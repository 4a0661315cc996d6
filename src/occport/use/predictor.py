"""From a frame to labelled voxels, with the network in PyTorch or as an exported file.

predictor = occport.Predictor("out/surroundocc.onnx")            # or Predictor(model)
occupancy = predictor(images, calibration)                       # labels (X, Y, Z)
occupancy.save("predictions")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..errors import FrameError, UserError
from ..export.device import EXACT
from ..export.follow import level_points
from ..export.weights import Weights
from ..frames.frame import NUSCENES_CAMERAS, Frame, described_value, printable
from ..frames.images import padded_hw, preprocess, read_images
from ..frames.rig import check_rig
from ..frames.source import seen_or_refuse
from ..model.surroundocc import SurroundOcc
from ..voxels.classes import IGNORE, OCCUPIED
from ..voxels.grid import Grid
from ..voxels.occupancy import Occupancy
from .file_runner import FileRunner
from .runner import Runner
from .torch_runner import TorchRunner

Images = NDArray[np.uint8] | Sequence[NDArray[np.uint8]] | Sequence[str | Path]


class Predictor:
    """Predicts one frame after the other.

    Args:
        model: a network in eval mode, float32, which runs in PyTorch; or the path of an exported .onnx file, whose manifest stands
            beside it, which runs on ONNX Runtime.
        provider: of an exported file, its execution provider: "CPU" or any other that is installed; None means the CPU.
        threads: CPU threads, at least 1; None leaves it to PyTorch or ONNX Runtime.
        weights: of a network, where its weights come from, for `described` and `trained`.
        precision: of a network, "fp32", "bf16", or on a GPU "fp16". Images, geometry and logits are float32 in each.
        device: of a network, as PyTorch calls it ("cpu", "cuda:1"); None means where its weights are.
        own: the network may be changed in place, which saves a copy of its weights. Else it stays as it is, and later changes to it
            change nothing here.

    Attributes:
        config: the network's; of an exported file the one in its manifest.
        grid: of its finest output.
        class_names: of labels 1, 2, …; ("occupied",) without semantics.
        described: one line: what runs it, and which weights or file.
        trained: False for seeded weights; weights that are handed over count as trained.
        precision: as given; "" of a file, which has its own.
        hints: lines about what makes it slow here, such as native kernels that could not be built.

    Errors: UserError for a model of another kind, for a provider with a network, a precision or device with a file, a precision or
        device that this machine does not have, and for threads; ModelFileError for a file that is not what was exported, and a provider
        that is not installed or does not run it.
    """

    def __init__(
        self, model: SurroundOcc | str | Path, *, provider: str | None = None, threads: int | None = None, weights: Weights | None = None,
        precision: str = EXACT, device: str | None = None, own: bool = False,
    ) -> None:  # fmt: skip
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise UserError("number of threads", expected="a whole number, at least 1", got=described_value(threads))
        self._runner: Runner
        if isinstance(model, SurroundOcc):
            if provider is not None:
                fix = "give its device, or export it"
                raise UserError(f"execution provider {provider!r}", expected="an exported file", got="a network in PyTorch", fix=fix)
            self._runner = TorchRunner(model, weights, threads, precision=precision, device=device, own=own)
        elif isinstance(model, str | Path):
            for what, given, instead in (("precision", precision != EXACT and precision, "its own"), ("device", device, "a provider")):
                if given:
                    raise UserError(what, expected=f"{instead} for an exported file", got=str(given), fix="leave it out")
            self._runner = FileRunner(Path(model), provider, threads)
        else:
            raise UserError(
                "the model", expected="a SurroundOcc network, or the path of an exported .onnx file", got=described_value(model)
            )
        self.config: Config = self._runner.config
        if self.config.num_classes > IGNORE:
            raise UserError("classes of the network", expected=f"at most {IGNORE}, with empty", got=str(self.config.num_classes))
        self.grid = Grid(self.config.occ_size, self.config.pc_range)
        self.class_names: tuple[str, ...] = self.config.class_names if self.config.use_semantic else OCCUPIED
        self.described: str = self._runner.described
        in_torch = self._runner if isinstance(self._runner, TorchRunner) else None
        self.precision: str = in_torch.precision if in_torch else ""
        self.hints: tuple[str, ...] = in_torch.hints if in_torch else ()
        self.trained: bool = self._runner.trained
        self._points = [level_points(level, self.config) for level in self.config.levels]

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides the labels, apart from the frame: kind, weights, config, precision and device where not the usual ones, and of a
        file its provider and its files' SHA-256."""
        return self._runner.identity

    def __call__(self, images: Images, calibration: NDArray[np.floating], name: str = "frame") -> Occupancy:
        """Predicts from plain arrays or image files.

        Args:
            images: of N cameras, in the order that the network was trained with (nuScenes: front, front right, front left, back, back
                left, back right): (N, H, W, 3) uint8 with channels B, G, R; or a sequence of N such arrays; or of N paths.
            calibration: (N, 4, 4), homogeneous LiDAR metres (x right, y forward, z up) → pixels times depth, of the images as they are.
            name: of the result and its files.

        Returns: see `predict`.
        Errors: FrameError for anything else, and as `predict`.
        """
        names = _camera_names(self.config.num_cameras)
        pixels = _pixels(images, names)
        return self.predict(Frame(printable(name, "name of the frame"), names, pixels, _matrices(calibration), f"{name}: handed over"))

    def predict(self, frame: Frame) -> Occupancy:
        """Labels the voxels of a frame: the finest scale, after the preprocessing of upstream's test pipeline.

        Returns: labels (X, Y, Z) uint8, the class of the largest logit; without semantics 1 where the probability is above 0.5, and the
            probabilities. `notes` tells of cameras that see nothing, and of voxels that an exported file had no room for.
        Errors: FrameError for images or matrices of another number, type, form or size than the network takes, for a rig that sees no
            voxel at all, and for another one than a file has baked in; ModelFileError where the network fails or gives no numbers.
        """
        img, lidar2img, blind = self._inputs(frame)
        answer = self._runner.answer(img, lidar2img)
        notes = (f"no voxel is seen by {', '.join(blind)}",) if blind else ()
        return Occupancy(frame.name, answer.labels, self.class_names, self.grid, answer.probabilities, (*notes, *answer.notes))

    def logits(self, frame: Frame) -> tuple[NDArray[np.float32], ...]:
        """What a network in PyTorch says of a frame, at every scale.

        Returns: four logits (1, classes, X, Y, Z) float32, coarse to fine; one class without semantics.
        Errors: FrameError as `predict`; UserError of an exported file, which need not hold them.
        """
        if not isinstance(self._runner, TorchRunner):
            raise UserError("logits of all scales", expected="a network in PyTorch", got=f"an exported file ({self.described})")
        img, lidar2img, _ = self._inputs(frame)
        return self._runner.logits(img, lidar2img)

    def _inputs(self, frame: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[str, ...]]:
        """(1, N, 3, H, W), (1, N, 4, 4), and the names of blind cameras."""
        _check(frame, self.config.num_cameras)
        image = self.config.image
        image_hw = padded_hw(frame.images.shape[1], frame.images.shape[2], image.size_divisor)
        self._runner.check(frame, image_hw)
        blind = seen_or_refuse(frame, self._points, image_hw)
        img = preprocess(frame.images, image.mean, image.std, image.to_rgb, image.size_divisor)
        return img, frame.lidar2img[None].astype(np.float32), tuple(blind)


def _check(frame: Frame, num_cameras: int) -> None:
    """What the frame readers see to, for frames that come from elsewhere."""
    names, images, what = frame.camera_names, frame.images, f"images of {frame.name}"
    if len(names) != num_cameras:
        raise FrameError(f"cameras of {frame.name}", expected=str(num_cameras), got=f"{len(names)} ({', '.join(names)})")
    expected = f"({num_cameras}, H, W, 3) uint8, channels B, G, R"
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise FrameError(what, expected=expected, got=described_value(images))
    if images.ndim != 4 or (images.shape[0], images.shape[3]) != (num_cameras, 3) or images.size == 0:
        raise FrameError(what, expected=expected, got=described_value(images))
    check_rig(frame.lidar2img, names, frame.name)


def _camera_names(num_cameras: int) -> tuple[str, ...]:
    if num_cameras == len(NUSCENES_CAMERAS):
        return NUSCENES_CAMERAS
    return tuple(f"CAM_{number}" for number in range(num_cameras))


def _pixels(images: object, names: tuple[str, ...]) -> NDArray[np.uint8]:
    """(N, H, W, 3) of an array, of arrays or of paths; an array is checked later."""
    if isinstance(images, np.ndarray):
        return images
    forms = f"an array (N, H, W, 3), or a list of {len(names)} arrays or paths"
    if not isinstance(images, Sequence) or isinstance(images, str | bytes):
        raise FrameError("images", expected=forms, got=described_value(images))
    if len(images) != len(names):
        raise FrameError("images", expected=f"{len(names)}, one for each camera", got=str(len(images)))
    if all(isinstance(image, str | Path) for image in images):
        return read_images([Path(image) for image in images], names)
    for name, image in zip(names, images, strict=True):
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.dtype != np.uint8:  # imread of OpenCV gives None for a bad file
            raise FrameError(f"image of {name}", expected="(H, W, 3) uint8, channels B, G, R", got=described_value(image))
        if image.shape != images[0].shape:
            raise FrameError(f"image of {name}", expected=f"{images[0].shape}, as of {names[0]}", got=str(image.shape))
    return np.stack(images)


def _matrices(calibration: object) -> NDArray[np.float64]:
    """Of any number and size: they are checked later."""
    try:
        matrices = np.asarray(calibration)
    except (TypeError, ValueError) as error:  # such as lists of different lengths, or a tensor on another device
        raise FrameError("calibration", expected="(N, 4, 4) numbers", got=str(error)) from error
    if matrices.dtype.kind not in "fiu":
        raise FrameError("calibration", expected="(N, 4, 4) numbers", got=described_value(calibration))
    return matrices.astype(np.float64)
