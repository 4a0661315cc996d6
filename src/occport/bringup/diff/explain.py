"""What a right kernel would have made of THEIR inputs, and whether their output is it, apart from rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto

from ...export.network_file import NetworkFile
from ...graph.precision.emulate import LOW, emulate
from ...graph.runnable import make_runnable
from ...graph.submodel import submodel, value_types
from ...session import Session, open_session
from .noise import DRAW, draw, with_noise
from .products import Products
from .regions import Region
from .rounding import FLOAT32, Rounding, coarsest, rounding_of
from .significance import Sums, Worst

Loader = Callable[[str], NDArray[np.generic] | None]
Places = NDArray[np.int64]  # in a tensor, flat
_FEW, _MANY = 2, 10  # runs with noise: for a first look, for a verdict
_GAIN = {"float32": 64.0, "float16": 8.0}  # at most: float16 is seldom summed over more than some hundred terms in itself
_REDUCING = ("ReduceMean", "ReduceSum", "InstanceNormalization", "GlobalAveragePool", "CumSum")
_LARGEST = 65504.0  # of float16
_FLIPS = 3.0  # times what runs with noise flip alone: whole numbers and labels that hang on a rounding
_COARSER = 2  # bits: what still hangs on a rounding flips in runs with so much more noise, if it did not in those with as much as there is


@dataclass(frozen=True, eq=False)
class Finding:
    """One tensor.

    Attributes:
        tensor: its name.
        ratio: its difference over what is explained; above 1: not explained. nan where it could not be judged.
        worst: the rows; None for integers that all agree.
        got, want: theirs, and what follows from their inputs.
        note: what could not be done, or what is odd about the numbers: infinities, saturation; "" else.
    """

    tensor: str
    ratio: float
    worst: Worst | None = None
    got: NDArray[np.generic] | None = None
    want: NDArray[np.generic] | None = None
    note: str = ""


class Explainer:
    """Runs regions of a file.

    Args:
        file: the network.
        theirs: tensor → their array, in the golden layout; None where there is none.
        given: arrays that stand in for tensors that they did not dump: inputs of the model, and what follows from their tables.
        dtypes: tensor → what they stored it as.
        products: how their kernels round factors, where dumps do not show it.
    """

    def __init__(
        self, file: NetworkFile, theirs: Loader, given: Mapping[str, np.ndarray], dtypes: Mapping[str, str],
        products: Products | None = None,
    ) -> None:  # fmt: skip
        self._file, self._theirs, self._given, self._dtypes, self.products = file, theirs, given, dtypes, products
        self._types = value_types(file.model.graph)
        self._roundings: dict[str, Rounding | None] = {}

    def with_products(self, products: Products) -> Explainer:
        """The same tensors, judged with factors that are rounded so."""
        return Explainer(self._file, self._theirs, self._given, self._dtypes, products)

    def load(self, name: str) -> NDArray[np.generic] | None:
        """Their array in the dtype that the model has there (float32 for 16 bits), or the one given for it."""
        array = self._theirs(name) if name in self._dtypes else None
        if array is None:
            array = self._given.get(name)
        if array is None:
            return None
        if name not in self._roundings and array.dtype.kind == "f":
            self._roundings[name] = rounding_of(array, self._dtypes[name]) if name in self._dtypes else FLOAT32
        elem_type = self._types[name].type.tensor_type.elem_type
        kind = np.dtype(np.float32) if elem_type in LOW else np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
        return array.astype(kind, copy=False)

    def rounding(self, name: str) -> Rounding:
        """How a tensor that was loaded is rounded; as most others are where it does not tell, float32 where it is not theirs."""
        if name not in self._dtypes:
            return FLOAT32
        found = self._roundings.get(name)
        if found is not None:
            return found
        told = [one for other, one in self._roundings.items() if one is not None and other in self._dtypes and not one.step]
        return max(set(told), key=told.count, default=FLOAT32)

    def part(self, region: Region, outputs: Sequence[str]) -> ModelProto:
        """The region as a model that ONNX Runtime can run; what has 16 bits is computed in float32."""
        model = submodel(self._file.model, region.reads, outputs, "region")
        emulate(model, rounding=False)
        make_runnable(model, self._file.dialect)
        return model

    def judged(self, region: Region) -> list[Finding]:
        """A finding for each output of a region. Errors: ModelFileError where ONNX Runtime cannot run it on their arrays."""
        feeds = {name: array for name in region.reads if (array := self.load(name)) is not None}
        loaded = {name: self.load(name) for name in region.outputs}
        got = {name: array for name, array in loaded.items() if array is not None}
        if len(feeds) < len(region.reads) or not got:
            return []
        model = self.part(region, list(got))
        feeds = {port.name: feeds[port.name] for port in model.graph.input}
        want = open_session(model, weights_folder=self._file.folder).run(feeds)
        # what is given has not been rounded yet; a kernel in 16 bits does that first
        own = {name: self.rounding(name) for name in (*feeds, *got) if name in self._dtypes}
        floats = [one for name in (*feeds, *got) if name in self._dtypes and (one := self._roundings.get(name)) is not None]
        floats = floats or [self.rounding(name) for name in (*feeds, *got) if name in self._dtypes and self._is_float(name)]
        judge = _Judge(self._file, model, feeds, own, coarsest(floats), _gain(model.graph, coarsest(floats)), self.products)
        return judge.findings(got, want)

    def _is_float(self, name: str) -> bool:
        return self._types[name].type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


class _Judge:
    """One region's verdict, with as many runs with noise as it takes."""

    def __init__(
        self, file: NetworkFile, model: ModelProto, feeds: Mapping[str, np.ndarray], own: Mapping[str, Rounding], inside: Rounding,
        gain: float, products: Products | None,
    ) -> None:  # fmt: skip
        self._file, self._model, self._feeds, self._own, self._inside, self._gain = file, model, feeds, own, inside, gain
        self._products = products
        self._session: Session | None = None
        self._coarse: Session | None = None

    def findings(self, got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray]) -> list[Finding]:
        found: list[Finding] = []
        open_floats: dict[str, Sums] = {}
        open_counts: dict[str, list[Places]] = {}
        notes: dict[str, str] = {}
        for name, array in got.items():
            if array.shape != want[name].shape:
                found.append(Finding(name, math.nan, note=f"shape {list(array.shape)}, the model has {list(want[name].shape)}"))
            elif array.dtype.kind != "f":
                if np.array_equal(array, want[name]):
                    found.append(Finding(name, 0.0))
                else:
                    open_counts[name] = []
            else:
                sums, notes[name] = self._sums(array, want[name], self._own[name])
                quick = sums.within_rounding()
                if notes[name] or quick > 1:
                    open_floats[name] = sums
                else:
                    found.append(Finding(name, quick / 3))
        for count in (_FEW, _MANY):
            if open_floats or open_counts:
                self._run(count, open_floats, open_counts, want)
            for name in [name for name, sums in open_floats.items() if not notes[name] and sums.quick()]:
                found.append(Finding(name, open_floats.pop(name).worst(self._gain).ratio))
        for name, sums in open_floats.items():
            worst = sums.worst(self._gain)
            ratio = math.inf if notes[name] else worst.ratio
            found.append(Finding(name, ratio, replace(worst, ratio=ratio), got[name], want[name], notes[name]))
        found += [self._counted(name, got[name], want[name], flips) for name, flips in open_counts.items()]
        return found

    def _sums(self, got: np.ndarray, want: np.ndarray, rounding: Rounding) -> tuple[Sums, str]:
        want, got = np.asarray(want, np.float32), np.asarray(got, np.float32)
        usable = np.isfinite(want)
        if rounding.name == "float16":  # beyond its largest number
            usable &= ~(np.isinf(got) & (np.abs(want) >= _LARGEST) & (np.sign(got) == np.sign(want)))
        lost = int(np.count_nonzero(usable & ~np.isfinite(got)))
        usable &= np.isfinite(got)
        note = f"{lost:,} of {got.size:,} numbers are nan or infinite" if lost else ""
        difference = got - want if usable.all() else np.where(usable, got, 0) - np.where(usable, want, 0)
        tiny = max(rounding.tiny, rounding.step / 2)
        return Sums(difference, want if usable.all() else np.where(usable, want, 0), tiny, rounding.unit), note

    def _run(self, count: int, floats: Mapping[str, Sums], flips: dict[str, list[Places]], want: Mapping[str, np.ndarray]) -> None:
        """Runs with noise until there are `count`."""
        if self._session is None:
            self._session = self._noisy(0)
        done = min([sums.draws for sums in floats.values()] + [len(one) for one in flips.values()])
        for number in range(done, count):
            made = self._session.run({**self._feeds, DRAW: draw(number)}, [*floats, *flips])
            for name, sums in floats.items():
                with np.errstate(invalid="ignore"):
                    noise = made[name].astype(np.float32) - want[name].astype(np.float32)
                sums.add(np.nan_to_num(noise, nan=0.0, posinf=0.0, neginf=0.0))
            for name, counts in flips.items():
                counts.append(np.flatnonzero(made[name] != want[name]))

    def _noisy(self, coarser: int) -> Session:
        """The part with noise, of so many bits less than there are."""
        own = {name: one.coarser(coarser) for name, one in self._own.items()}
        whole = [name for name, array in self._feeds.items() if array.dtype.kind == "f" and bool((np.rint(array) == array).all())]
        noisy = with_noise(self._model, own, self._inside.coarser(coarser), self._products, whole)
        return open_session(noisy, weights_folder=self._file.folder)

    def _counted(self, name: str, got: np.ndarray, want: np.ndarray, flips: Sequence[Places]) -> Finding:
        """Integers and booleans: those that differ and flip in no run with noise, against how many flip in one run alone."""
        beside = np.flatnonzero(got != want)
        reached = _union(flips)
        left = np.setdiff1d(beside, reached)
        if len(left):
            if self._coarse is None:
                self._coarse = self._noisy(_COARSER)
            more = [self._coarse.run({**self._feeds, DRAW: draw(number)}, [name])[name] for number in range(_MANY)]
            far = _union([np.flatnonzero(made != want) for made in more])
            left = np.setdiff1d(left, far)
            reached = np.union1d(reached, far)
            alone = [np.setdiff1d(one, np.union1d(far, _union([*flips[:i], *flips[i + 1 :]]))) for i, one in enumerate(flips)]
            allowed = _FLIPS * max(map(len, alone), default=0)
        if not len(left):
            return Finding(name, min(1.0, len(beside) / max(len(reached), 1)))
        ratio = len(left) / allowed if allowed else math.inf
        rows = np.stack(np.unravel_index(left, got.shape), axis=1)
        return Finding(name, ratio, Worst(ratio, tuple(range(got.ndim)), rows, got.size, float(len(left))), got, want)


def _union(places: Sequence[Places]) -> Places:
    return np.unique(np.concatenate(places)) if places else np.empty(0, np.int64)


def _gain(graph: GraphProto, rounding: Rounding) -> float:
    """How many times the noise a sum of many terms may differ that is added up in the dtype itself.

    Partial sums of K terms like random numbers are rounded K times: about sqrt(K)/2 times what rounding the terms costs. Kernels in
    bfloat16 and int8 add in wider dtypes.
    """
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes |= {name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim) for name, info in value_types(graph).items()}
    weights = {tensor.name for tensor in graph.initializer}
    terms = 1
    for node in graph.node:
        sizes = [shapes.get(name, ()) for name in node.input]
        if node.op_type in _REDUCING:
            made = 1 if node.op_type == "CumSum" else math.prod(shapes.get(node.output[0], ()))
            terms = max(terms, math.prod(sizes[0]) // max(1, made), sizes[0][-1] if sizes[0] else 1)
        elif node.op_type in ("MatMul", "Gemm"):
            terms = max(terms, sizes[0][-1] if sizes[0] else 1)
        else:
            terms = max([terms, *(math.prod(shapes[name][1:]) for name in node.input if name in weights)])
    return min(math.sqrt(1 + terms / 4), _GAIN.get(rounding.name, 2.0))
