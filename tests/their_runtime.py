"""Somebody's runtime for `--bisect`: ONNX Runtime with bodies, and a bug in one node if it is in the part. Run as a script."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx

from occport.graph.dialect import load
from occport.graph.runnable import make_runnable
from occport.session import open_session


def main() -> None:
    """their_runtime.py MODEL INPUTS OUTPUTS [DIALECT NODE]: the node's output comes out 1.05 times too large; without one all is right.

    NODE "tf32": none is wrong, and factors of products are rounded.
    """
    model_path, inputs, outputs, dialect, culprit = [*sys.argv[1:], *("dl", "")[: 6 - len(sys.argv)]][:5]
    model = onnx.load(model_path)
    make_runnable(model, load(dialect))
    if culprit == "tf32":
        from planting import rounded_factors  # beside this file

        rounded_factors(model.graph, 11)
    bad = next((node for node in model.graph.node if node.name == culprit), None)
    if bad is not None:
        name = bad.output[0]
        bad.output[0] = "right"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1.05, np.float32), "factor"))
        place = next(i for i, node in enumerate(model.graph.node) if node is bad or node.name == culprit)
        model.graph.node.insert(place + 1, onnx.helper.make_node("Mul", ["right", "factor"], [name], name="bug"))
    session = open_session(model)
    feeds = {port.name: np.load(Path(inputs) / f"{port.name}.npy") for port in session.inputs}
    for name, array in session.run(feeds).items():
        np.save(Path(outputs) / f"{name}.npy", array)


if __name__ == "__main__":
    main()
