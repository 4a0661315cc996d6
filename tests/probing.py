"""For the tests of probes: the command in this process, and the network in a found dialect."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import onnx
import onnx_ir as ir
import torch

from exporting import Network, Ran
from occport import cli
from occport.commands import probe
from occport.export.build import build_main
from occport.export.request import Request, make_spec


def run_probe(*arguments: object) -> Ran:
    """`occport probe …`."""
    parser = cli.OneLineParser(prog="occport probe")
    probe.add_arguments(parser)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.run(probe.run, parser.parse_args([str(argument) for argument in arguments]))
        except SystemExit as end:
            status = int(end.code or 0)
    return Ran(status, out.getvalue(), err.getvalue())


def written_network(network: Network, dialect: Path | str, opset: int | None = None, calibration: str | None = None) -> onnx.ModelProto:
    """The tiny network as an export in this dialect writes it, before verification."""
    request = Request(config=network.spec.config, dialect=str(dialect), opset=opset, calibration=calibration)
    spec = make_spec(request, network.loaded)
    tables = None
    if spec.calibration == "fixed":
        with torch.no_grad():
            tables, _ = network.model.tables(torch.from_numpy(network.loaded.lidar2img), spec.image_hw, spec.budgets)
    return ir.to_proto(build_main(network.model, spec, tables))
