"""Make a verified ONNX file from a SurroundOcc config and a checkpoint.

The file appears only after every check on it has passed: structure, contract, and values against PyTorch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ..errors import ExportError
from .network_flags import PRECISIONS
from .reference_flags import add_reference_arguments, reference_of

PLACES = ("constant", "initializer")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags, also those of tools/export.py."""
    what = parser.add_argument_group("what to export")
    what.add_argument("--config", required=True, type=Path, help="a SurroundOcc config, ours or upstream's; read as data, never executed")
    what.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="overrides, dotted from the config's top: model.img_backbone.depth=50",
    )
    what.add_argument("--checkpoint", type=Path, help=".pth or .safetensors; without it the weights are seeded and the file says UNTRAINED")
    what.add_argument("--seed", type=_whole_from(0), default=0, help="for seeded weights and the synthetic city (default: 0)")
    what.add_argument(
        "--frame", help="frame.json, a folder that holds one, or infos.pkl:INDEX (default: a frame of the synthetic city)"
    )
    form = parser.add_argument_group("the form of the file")
    form.add_argument(
        "--calibration",
        choices=("runtime", "tables", "fixed"),
        help="input of the graph, tables made on the host, or constants (default: runtime)",
    )
    form.add_argument(
        "--budget",
        metavar="S[:C],S[:C],S[:C]",
        help="slots[:cameras] of each level, fine to coarse (default: from the rig, turned, + 10 %%)",
    )
    form.add_argument(
        "--dialect", metavar="NAME|FILE.toml", help="default: the bring-up document's; `occport dialects` lists them"
    )
    form.add_argument("--opset", type=int, help="11 to 22 (default: the dialect's)")
    form.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISIONS[0],
        help="of weights, activations and custom nodes; the geometry stays in float32 (default: fp32)",
    )  # fmt: skip
    form.add_argument(
        "--functions",
        action="store_true",
        help="put the custom nodes' bodies into the file, so that stock ONNX Runtime runs it (opset 16 and up)",
    )
    form.add_argument(
        "--msda",
        default="",
        choices=("gridsample", "gather"),
        help="attention as standard operators (default: the opset's best)",
    )
    form.add_argument(
        "--dcn", default="", choices=("deformconv", "gridsample", "gather"), help="deformable convolution as standard operators (the same)"
    )
    form.add_argument("--outputs", choices=("labels", "logits", "probabilities"), help="default: labels; probabilities without semantics")
    form.add_argument("--levels", default="all", choices=("all", "finest"), help="all four output scales, or the finest (default: all)")
    form.add_argument("--external-data", action="store_true", help="weights in a file of their own beside the model")
    _add_settings(parser.add_argument_group("settings that the bring-up document leaves open"))
    place = parser.add_argument_group("where to")
    place.add_argument("--output-dir", type=Path, default=Path("out"), help="folder of the file and its manifest (default: out)")
    place.add_argument(
        "--save-io", choices=("npy", "bin", "pb"), help="also the frame's inputs and expected outputs, for the first run on a chip"
    )
    add_reference_arguments(parser)


def _add_settings(guess: argparse._ArgumentGroup) -> None:
    guess.add_argument("--op-name", action="append", default=[], metavar="dcn|msda=DOMAIN::NAME", help="name of a custom node")
    guess.add_argument("--scalar-rank", type=int, choices=(0, 1), help="rank of bs, num_queries, num_embed")
    guess.add_argument("--scalar-dtype", choices=("int64", "int32"), help="dtype of bs, num_queries, num_embed")
    guess.add_argument("--scalar-place", choices=PLACES, help="Constant nodes or initializers")
    guess.add_argument("--num-embed", choices=("all", "head"), help="heads x head width, or head width")
    guess.add_argument("--shapes-dtype", choices=("int64", "int32"), help="dtype of spatial_shapes and level_start_index")
    guess.add_argument("--im2col-step", type=_whole_from(1), help="attribute of the attention node")
    guess.add_argument(
        "--dcn-bias",
        choices=("batchnorm", "add", "input"),
        help="BatchNormalization behind the node, folded and an Add, folded into a fifth input",
    )
    guess.add_argument("--img-rank", type=int, choices=(4, 5), help="img as (1,N,3,H,W) (default) or (N,3,H,W)")
    guess.add_argument("--lidar2img-rank", type=int, choices=(3, 4), help="lidar2img as (1,N,4,4) (default) or (N,4,4)")
    guess.add_argument("--label-dtype", choices=("int64", "int32"), help="default: int64")
    guess.add_argument("--softmax", action="store_true", default=None, help="keep upstream's softmax in front of the argmax")
    guess.add_argument("--no-dropped", action="store_true", help="leave the count of dropped voxels out of the file")
    guess.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="name of an input or output")


def run(options: argparse.Namespace) -> int:
    """Runs the export and tells it check by check."""
    from ..config import read_config_with_options
    from ..export.pipeline import export
    from ..export.request import Request
    from ..graph.dialect import default, load
    from ..graph.settings import Settings
    from ..progress import Progress

    settings = Settings(
        op_names=tuple(_pair(text, "--op-name", "dcn=DOMAIN::NAME") for text in options.op_name),
        scalar_rank=options.scalar_rank,
        scalar_dtype=options.scalar_dtype,
        scalar_place=options.scalar_place,
        num_embed=options.num_embed,
        shapes_dtype=options.shapes_dtype,
        im2col_step=options.im2col_step,
        dcn_bias=options.dcn_bias,
    )
    request = Request(
        config=read_config_with_options(options.config, options.cfg_options),
        checkpoint=options.checkpoint,
        seed=options.seed,
        frame=options.frame,
        calibration=options.calibration,
        budgets=_budgets(options.budget),
        dialect=options.dialect,
        settings=settings,
        opset=options.opset,
        functions=options.functions,
        precision=options.precision,
        msda=options.msda,
        dcn=options.dcn,
        outputs=options.outputs,
        levels=options.levels,
        label_dtype=options.label_dtype,
        softmax=options.softmax,
        with_dropped=False if options.no_dropped else None,
        img_rank=options.img_rank,
        lidar2img_rank=options.lidar2img_rank,
        renames=tuple(_pair(text, "--rename", "OLD=NEW") for text in options.rename),
        external_data=options.external_data,
        output_dir=options.output_dir,
        save_io=options.save_io,
        reference=reference_of(options),
    )
    calibration = options.calibration or (load(options.dialect) if options.dialect else default()).export.calibration
    progress = Progress(total_stages=9 - (calibration == "fixed") + bool(options.save_io))
    result = export(request, progress)
    progress.finish()
    table = result.manifest
    if not table["trained"]:
        print("UNTRAINED: these weights are seeded, not trained. Give --checkpoint for a network that predicts anything.")
    for path in result.files:
        print(f"{path}  {path.stat().st_size:,} bytes")
    custom = {contract.title for contract in (result.dialect.msda, result.dialect.dcn) if contract}
    counts = ", ".join(f"{count} {name}" for name, count in table["census"].items() if name in custom)
    print(f"{table['nodes']} nodes; {counts or 'standard operators only'}")
    print(f"all {len(result.report.checks)} checks passed")
    return 0


def _whole_from(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, got {text!r}")
        return int(text)

    return read


def _pair(text: str, flag: str, form: str) -> tuple[str, str]:
    left, separator, right = text.partition("=")
    if not (left and separator and right):
        raise ExportError(flag, expected=form, got=text)
    return left, right


def _budgets(text: str | None) -> tuple[tuple[int, int | None], ...] | None:
    if text is None:
        return None
    budgets = []
    for part in text.split(","):
        slots, separator, cameras = part.strip().partition(":")
        if not slots.isdecimal() or (separator and not cameras.isdecimal()):
            raise ExportError("--budget", expected="slots[:cameras] of each level, as 20864:3,2624:3,384:3", got=text)
        budgets.append((int(slots), int(cameras) if cameras else None))
    return tuple(budgets)
