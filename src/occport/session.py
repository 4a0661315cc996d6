"""ONNX Runtime in one place: opening a model on the CPU or another provider, feeding it, and its errors as one line each.

A large file is best opened as its skeleton (`graph.model_file.read_skeleton`) with `weights_folder`: ONNX Runtime then maps the
weights from the file on disk instead of copying them out of a protobuf message. Measured with a 694 MB model (half convolutions, half
matrix products), the same results bit for bit:

    | opened as                                   | memory after loading |
    |---------------------------------------------|----------------------|
    | path                                        | 1,509 MB             |
    | path, initializers outside the arena        | 1,408 MB             |
    | skeleton, initializers outside the arena    | 1,071 MB             |
    | the same, `session.disable_prepacking`      |   750 MB             |

What is left of the copies are convolution weights in the blocked layout and packed matrices; both make every run faster, so they stay.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx

from .errors import ModelFileError
from .external_data import beside_its_data, serialised

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, RunOptions, SessionOptions

CPU = "CPU"  # the provider that is always there
_SUFFIX = "ExecutionProvider"
_ASSIGNMENT_KEY = "session.record_ep_graph_assignment_info"
_ONLY_FATAL = 4  # log severity; an error arrives as an exception, and would else stand on the terminal twice
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"
_DTYPES: dict[str, type[np.generic]] = {
    "float": np.float32, "double": np.float64, "float16": np.float16, "bool": np.bool_, "string": np.object_,
    "int8": np.int8, "int16": np.int16, "int32": np.int32, "int64": np.int64,
    "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64,
}


class Port(NamedTuple):
    """An input or output of a model. `shape` holds a number, or the name of a free dimension, or None; () also if nothing is declared."""

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...]


class Session:
    """A model ready to run; made by `open_session`.

    Attributes:
        inputs, outputs: its ports in graph order.
        provider: the execution provider that was asked for, "CPU" without one.
        placed: with a provider other than the CPU, how many nodes each one runs, by short name; else {}.
    """

    def __init__(
        self, session: InferenceSession, name: str, provider: str, placed: Mapping[str, int], recording: Path | None = None
    ) -> None:  # fmt: skip
        from onnxruntime import RunOptions

        self.provider, self.placed, self._recording = provider, placed, recording
        self._session, self._name = session, name
        self._options: RunOptions = RunOptions()
        self._options.log_severity_level = _ONLY_FATAL
        self.inputs = tuple(_port(node, name) for node in session.get_inputs())
        self.outputs = tuple(_port(node, name) for node in session.get_outputs())

    def profile(self) -> Path:
        """Ends the recording that `open_session(profile=…)` began; later runs are not recorded.

        Returns: the file, ONNX Runtime's JSON list of events (Chrome's trace format; "dur" in microseconds).
        Errors: ModelFileError for a session that is not recorded, or no longer.
        """
        if self._recording is None:
            fix = "open it with profile=, and ask once"
            raise ModelFileError(f"profile of {self._name}", expected="a session that is recorded", got="none", fix=fix)
        wanted, self._recording = self._recording, None
        with _plain_errors(f"profiling {self._name}"):
            written = Path(self._session.end_profiling())
        return written.replace(wanted)

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Runs the model once.

        Args:
            feeds: an array for every input, of exactly its dtype and shape; any memory layout.
            outputs: names of the wanted outputs; None means all, in graph order.

        Returns: the wanted outputs by name.
        Errors: ModelFileError for a missing, unknown, misshapen or mistyped input, an unknown output, and what fails inside the model,
            with the name of the node.
        """
        self._check_feeds(feeds)
        known = [port.name for port in self.outputs]
        wanted = known if outputs is None else list(outputs)
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise ModelFileError(f"output {unknown[0]!r} of {self._name}", expected=f"one of {', '.join(known)}", got="an unknown name")
        with _plain_errors(f"running {self._name}"):
            arrays = self._session.run(wanted, {name: np.ascontiguousarray(array) for name, array in feeds.items()}, self._options)
        return dict(zip(wanted, arrays, strict=True))

    def _check_feeds(self, feeds: Mapping[str, np.ndarray]) -> None:
        names = [port.name for port in self.inputs]
        for name in feeds:
            if name not in names:
                expected = f"one of {', '.join(names)}" if names else "a model without inputs"
                raise ModelFileError(f"input {name!r} of {self._name}", expected=expected, got="an unknown name")
        for port in self.inputs:
            what = f"input {port.name!r} of {self._name}"
            wanted = f"{port.dtype.name} {list(port.shape)}"
            if port.name not in feeds:
                raise ModelFileError(what, expected=wanted, got="nothing", fix=f"feed all of {', '.join(names)}")
            array = feeds[port.name]
            if array.dtype != port.dtype:
                raise ModelFileError(what, expected=wanted, got=f"{array.dtype.name} {list(array.shape)}", fix="convert it with astype")
            if port.shape and not _fits(array.shape, port.shape):
                raise ModelFileError(what, expected=wanted, got=f"{array.dtype.name} {list(array.shape)}")


def _fits(shape: tuple[int, ...], declared: tuple[int | str | None, ...]) -> bool:
    if len(shape) != len(declared):
        return False
    return all(size == dim for size, dim in zip(shape, declared, strict=True) if isinstance(dim, int))


def _port(node: object, model_name: str) -> Port:
    """ONNX Runtime's description of an input or output. Its Python interface has no arrays for bfloat16 and float8, nor for sequences."""
    name, kind, shape = (getattr(node, key) for key in ("name", "type", "shape"))
    found = re.fullmatch(r"tensor\((\w+)\)", kind)
    if found is None or found[1] not in _DTYPES:
        raise ModelFileError(
            f"input or output {name!r} of {model_name}", expected="a tensor type that NumPy has", got=kind,
            fix="put a Cast to float32 between it and the caller",
        )
    return Port(name, np.dtype(_DTYPES[found[1]]), tuple(shape))


def open_session(
    model: onnx.ModelProto | Path, *, weights_folder: Path | None = None, threads: int | None = None,
    custom_op_library: Path | None = None, provider: str | None = None, profile: Path | None = None, optimise: bool = True,
) -> Session:  # fmt: skip
    """Opens a model with ONNX Runtime.

    Args:
        model: a file, or a model in memory; one with external data (a skeleton) needs `weights_folder`.
        weights_folder: the folder that the external data of a model in memory are in. For a file it is the file's own.
        threads: number of CPU threads, at least 1; None leaves it to ONNX Runtime (one per physical core).
        custom_op_library: a shared library of ONNX Runtime custom operators, preferred to a model-local function of the same name.
        provider: what runs it, as `full_name` takes it; None means the CPU. Nodes that it has no kernel for run on the CPU, and
            `Session.placed` tells how many those are.
        profile: a JSON file that the time of every operator of every run is written to, until `Session.profile` ends it; its folder
            must be there. Recording costs a little time.
        optimise: False runs every operator by itself: an operator's bits then do not depend on its neighbours.

    Results depend on nothing but the model, its inputs and the provider: no silent fallback to another one, deterministic kernels.

    Errors: ModelFileError for a file that is no ONNX model, an operator that is neither built in nor defined in the model, an unknown
        opset, missing external data, a library that cannot be loaded; a provider that is not installed, does not start, or takes no
        node; a profile in a folder that is not there.
    """
    import onnxruntime

    wanted = full_name(CPU if provider is None else provider)
    name = str(model) if isinstance(model, Path) else f"model {model.graph.name or 'without a name'!r}"
    options = _options(threads, optimise)
    if profile is not None:
        _record(options, profile)
    if wanted != CPU + _SUFFIX:
        options.add_session_config_entry(_ASSIGNMENT_KEY, "1")
    if custom_op_library is not None:
        with _plain_errors(f"custom operator library {custom_op_library}"):
            options.register_custom_ops_library(str(custom_op_library.resolve()))
    source: str | bytes
    if isinstance(model, Path):
        if not model.is_file():
            raise ModelFileError(f"model file {name}", expected="an ONNX file", got="no such file", fix="check the path")
        source = str(model)
    else:
        model, folder = beside_its_data(model, weights_folder, name)
        if folder is not None:
            options.add_session_config_entry(_FOLDER_KEY, str(folder))
        source = serialised(model, name)
    with _plain_errors(f"opening {name}"):
        # The fallback would print to stdout and try again with another provider.
        session = onnxruntime.InferenceSession(source, options, providers=[wanted], enable_fallback=0)
    return Session(session, name, wanted.removesuffix(_SUFFIX), _placed(session, wanted, name), profile)


def installed_providers() -> tuple[str, ...]:
    """Short names of the execution providers of this ONNX Runtime ("CPU", …), the preferred first."""
    import onnxruntime

    return tuple(name.removesuffix(_SUFFIX) for name in onnxruntime.get_available_providers())


def full_name(provider: str) -> str:
    """ONNX Runtime's name of a provider.

    Args:
        provider: its name with or without "ExecutionProvider", in upper or lower case.
    Errors: ModelFileError for one that is not installed; it lists those that are.
    """
    installed = installed_providers()
    short = provider.lower().removesuffix(_SUFFIX.lower())
    for name in installed:
        if name.lower() == short:
            return name + _SUFFIX
    expected, fix = f"one that is installed: {', '.join(installed)}", "install the build of onnxruntime that has it"
    raise ModelFileError(f"execution provider {provider!r}", expected=expected, got="none of these", fix=fix)


def _placed(session: InferenceSession, wanted: str, name: str) -> dict[str, int]:
    """How many nodes each provider runs, by short name; {} for the CPU. ModelFileError where the wanted one runs none."""
    if wanted == CPU + _SUFFIX:
        return {}
    short, first = wanted.removesuffix(_SUFFIX), session.get_providers()[0].removesuffix(_SUFFIX)
    if first != short:  # its library or its device is missing, and ONNX Runtime went on without it
        fix = "look whether its libraries and its device are there"
        raise ModelFileError(f"opening {name} with {short}", expected="this provider to start", got=f"{first} in its place", fix=fix)
    counts: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        owner = part.ep_name.removesuffix(_SUFFIX)
        counts[owner] = counts.get(owner, 0) + len(part.get_nodes())
    if not counts.get(short):
        raise ModelFileError(f"opening {name} with {short}", expected="nodes that this provider can run", got="none; all would run on CPU")
    return counts


def _options(threads: int | None, optimise: bool) -> SessionOptions:
    from onnxruntime import GraphOptimizationLevel, SessionOptions

    if threads is not None and threads < 1:
        raise ModelFileError("number of threads", expected="at least 1", got=str(threads))
    options = SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.use_deterministic_compute = True
    options.log_severity_level = _ONLY_FATAL
    if not optimise:
        options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    # Planned activation buffers are one block as large as the whole first run, beside what that run itself took: 11 % more memory, and
    # an unsteady second run. The arena stays: without it a run takes 40 % longer for 16 % less memory.
    options.enable_mem_pattern = False
    # Weights outside the arena, which grows by powers of two and never shrinks: 7 % less memory.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    return options


def _record(options: SessionOptions, profile: Path) -> None:
    """ONNX Runtime puts the time behind the name that it is given, and fails silently at the end where it cannot write."""
    if not profile.parent.is_dir() or not os.access(profile.parent, os.W_OK):
        raise ModelFileError(f"profile {profile}", expected="a folder to write in", got=f"{profile.parent}", fix="make it first")
    options.enable_profiling = True
    options.profile_file_prefix = f"{profile}.part"


@contextmanager
def _plain_errors(what: str) -> Iterator[None]:
    """ONNX Runtime's exceptions as a ModelFileError of one line. Its classes share no ancestor below Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    known = (
        state.EPFail, state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.ModelRequiresCompilation,
        state.NoModel, state.NoSuchFile, state.NotFound, state.NotImplemented, state.RuntimeException, RuntimeError, ValueError,
    )
    try:
        yield
    except known as error:
        reason = _reason(str(error))
        unknown = "No Op registered" in reason or "not a registered function/op" in reason
        fix = "the operator needs a function body in the file, or its custom operator library" if unknown else ""
        raise ModelFileError(what, got=reason, fix=fix) from error


def _reason(message: str) -> str:
    """The useful part of an ONNX Runtime message: without its error code, and without places and signatures in its own source."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message).strip()
    text = re.sub(r"^Load model from .*? failed:\s*", "", text)
    failed = re.match(r"Non-zero status code returned while running (\S+) node\. Name:'([^']*)' Status Message: (.*)", text, re.DOTALL)
    text = failed[3] if failed else text
    text = re.sub(r"\S*/onnxruntime_src/\S+:\d+ [^\n]*?\)(?: const)? (?=\S)", "", text)
    text = re.sub(r"\.?\b[\w/]+\.(?:cc|h):\d+ \w+ ", " ", text)
    text = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return f"node {failed[2] or 'without a name'!r} ({failed[1]}): {text}" if failed else text
