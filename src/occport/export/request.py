"""What the user asks for, and what that makes of a config and a frame: the spec, or one line that says why it cannot be."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..city.frame import default_frame
from ..config import Config
from ..errors import ExportError
from ..frames.frame import Frame
from ..frames.images import padded_hw, preprocess
from ..frames.source import load_frame, seen_or_refuse
from ..frames.visibility import hits, needs
from ..graph import dialect as dialects
from ..graph.dialect import Dialect, Guess
from ..graph.functions import Arithmetics
from ..graph.precision.target import check_precision
from ..graph.precision.types import EXACT, PRECISIONS
from ..graph.rewrite import check_target
from ..graph.settings import Settings, with_settings
from ..model.projection import Budget
from ..voxels.grid import Grid
from .device import Setting
from .follow import default_budgets, level_points
from .spec import CALIBRATIONS, Spec, check_renames
from .trace import Outputs
from .weights import UNTRAINED

_FLAGS = {"op_names": "op_name", "with_dropped": "no_dropped", "renames": "rename"}  # fields of a request that are called otherwise


@dataclass(frozen=True)
class Request:
    """What the user asks for. None leaves a choice to the dialect, the config or the frame."""

    config: Config
    checkpoint: Path | None = None
    seed: int = 0
    frame: str | None = None
    calibration: str | None = None
    budgets: tuple[tuple[int, int | None], ...] | None = None  # slots, cameras of each level
    dialect: str | None = None  # a name, or the path of a .toml file
    settings: Settings = Settings()  # noqa: RUF009 - frozen
    opset: int | None = None
    functions: bool = False
    msda: str = ""  # arithmetic of the attention, "" = the dialect's or the opset's best
    dcn: str = ""
    outputs: str | None = None
    levels: str = "all"
    label_dtype: str | None = None
    softmax: bool | None = None
    with_dropped: bool | None = None
    img_rank: int | None = None
    lidar2img_rank: int | None = None
    renames: tuple[tuple[str, str], ...] = ()
    external_data: bool = False
    output_dir: Path = Path("out")
    save_io: str | None = None
    precision: str = EXACT
    reference: Setting = Setting()  # noqa: RUF009 - frozen; how PyTorch runs that the file is held against


@dataclass(frozen=True)
class Loaded:
    """A frame as the network takes it."""

    frame: Frame
    img: np.ndarray  # (1, N, 3, H, W) float32
    lidar2img: np.ndarray  # (1, N, 4, 4) float32
    blind: tuple[str, ...]
    origin: dict[str, Any]  # for the manifest


def load_input(config: Config, frame_spec: str | None, seed: int = 0) -> Loaded:
    """Reads or makes the frame and preprocesses it as upstream's test pipeline. FrameError as the readers say."""
    image = config.image
    if frame_spec is None:
        frame = default_frame(config.num_cameras, image.size, Grid(config.occ_size, config.pc_range), seed)
    else:
        frame = load_frame(frame_spec, num_cameras=config.num_cameras)
    size = (frame.images.shape[1], frame.images.shape[2])
    points = [level_points(level, config) for level in config.levels]
    blind = seen_or_refuse(frame, points, padded_hw(*size, image.size_divisor))
    img = preprocess(frame.images, image.mean, image.std, image.to_rgb, image.size_divisor)
    where = None if frame_spec is None else str(Path(frame_spec).absolute())
    origin = {
        "spec": where,
        "seed": seed,
        "name": frame.name,
        "cameras": list(frame.camera_names),
        "size": list(size),
        "lidar2img": frame.lidar2img.tolist(),  # for files that have it baked in
        "described": frame.described,
    }
    return Loaded(frame, img, frame.lidar2img[None].astype(np.float32), blind, origin)


def make_spec(request: Request, loaded: Loaded) -> Spec:
    """Everything that decides the file. ExportError for what cannot be."""
    config = request.config
    dialect = with_settings(dialects.load(request.dialect) if request.dialect else dialects.default(), request.settings)
    usual = dialect.export
    calibration = request.calibration or usual.calibration
    if calibration not in CALIBRATIONS:
        raise ExportError("--calibration", expected="one of " + ", ".join(CALIBRATIONS), got=calibration)
    functions = request.functions or dialect.functions
    opset = request.opset if request.opset is not None else _usual_opset(dialect, functions, request.precision)
    dialect = replace(dialect, guesses=open_guesses(dialect, request, opset))
    in_file = functions or dialect.msda is None  # otherwise the dialect's own choice says nothing about this file
    arithmetics = Arithmetics(request.msda or in_file * usual.msda, request.dcn or in_file * usual.dcn)
    check_target(dialect, opset, functions, arithmetics)
    check_precision(request.precision, dialect, opset, functions, arithmetics)
    kind = request.outputs or usual.outputs or ("labels" if config.num_classes > 1 else "probabilities")
    scales = tuple(range(len(config.output_sizes)))
    softmax = usual.softmax if request.softmax is None else request.softmax
    label_dtype = request.label_dtype or usual.label_dtype
    outputs = Outputs(kind, scales if request.levels == "all" else scales[-1:], label_dtype, softmax)
    image_hw = (loaded.img.shape[-2], loaded.img.shape[-1])
    # the default frame's size becomes the config's, so that made-up images of later checks have it too
    config = replace(config, image=replace(config.image, size=(loaded.frame.images.shape[1], loaded.frame.images.shape[2])))
    spec = Spec(
        config=config,
        image_hw=image_hw,
        budgets=_budgets(request, config, loaded, image_hw),
        calibration=calibration,
        dialect=dialect,
        opset=opset,
        functions=functions,
        outputs=outputs,
        with_dropped=usual.dropped if request.with_dropped is None else request.with_dropped,
        img_rank=request.img_rank or usual.img_rank,
        lidar2img_rank=request.lidar2img_rank or usual.lidar2img_rank,
        renames=request.renames,
        arithmetics=arithmetics,
        precision=request.precision,
    )
    check_renames(spec)
    return spec


def open_guesses(dialect: Dialect, request: Request, opset: int) -> tuple[Guess, ...]:
    """The dialect's guesses, without those whose every flag was given, and with a word about flags that were."""
    usual = {**vars(Request(request.config)), **vars(Settings())}
    chosen = {key: value for key, value in {**vars(request), **vars(request.settings)}.items() if value != usual[key]}
    given = {f"--{_FLAGS.get(key, key).replace('_', '-')}" for key in chosen}
    given |= {"--opset"} if opset != dialect.opset else set()
    given |= {f"--op-name {operator}" for operator, _ in request.settings.op_names}
    left = []
    for guess in dialect.guesses:
        flags = re.findall(r"--[a-z0-9-]+(?: dcn| msda)?", guess.flag)
        told = [flag for flag in flags if flag in given]
        if len(told) < len(flags):
            left.append(replace(guess, what=f"{guess.what}, but for what {', '.join(told)} says") if told else guess)
    return tuple(left)


def _usual_opset(dialect: Dialect, functions: bool, precision: str) -> int:
    """The dialect's, or the first that has what is asked for."""
    usual = max(dialect.opset, 17) if functions else dialect.opset
    return usual if precision == EXACT else max(usual, PRECISIONS[precision].first_opset)


def _budgets(request: Request, config: Config, loaded: Loaded, image_hw: tuple[int, int]) -> tuple[Budget, ...]:
    """The user's budgets, or room for the frame's rig however it is turned. ExportError where this very frame does not fit."""
    defaults = default_budgets(config, loaded.frame.lidar2img, image_hw)
    if request.budgets is None:
        return defaults
    if len(request.budgets) != len(config.levels):
        raise ExportError("--budget", expected=f"{len(config.levels)} values, fine to coarse", got=str(len(request.budgets)))
    chosen = []
    for i, (level, (slots, cameras)) in enumerate(zip(config.levels, request.budgets, strict=True)):
        budget = Budget(slots, cameras or defaults[i].cameras)
        what, got = f"--budget of level {i}", f"{budget.slots}:{budget.cameras}"
        if not (1 <= budget.slots <= level.num_voxels and 1 <= budget.cameras <= config.num_cameras):
            raise ExportError(what, expected=f"1 to {level.num_voxels} slots and 1 to {config.num_cameras} cameras", got=got)
        least = needs(hits(loaded.frame.lidar2img, image_hw, level_points(level, config)))
        if budget.slots < least[0] or budget.cameras < least[1]:
            fix = f"leave --budget out for {defaults[i].slots}:{defaults[i].cameras}"
            raise ExportError(what, expected=f"at least {least[0]}:{least[1]}, what the given frame needs", got=got, fix=fix)
        chosen.append(budget)
    return tuple(chosen)


def file_name(spec: Spec, trained: bool) -> str:
    """surroundocc_dl_opset11_runtime, with UNTRAINED where it is."""
    parts = [
        spec.config.name,
        "" if trained else UNTRAINED,
        spec.dialect.name,
        *(f"{operator}_{form}" for operator, form in spec.arithmetics._asdict().items() if form),
        f"opset{spec.opset}",
        "" if spec.precision == EXACT else spec.precision,
        "functions" * spec.functions,
        spec.calibration,
    ]
    return "_".join(part for part in parts if part)
