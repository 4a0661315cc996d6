"""A result as aligned text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..columns import aligned
from .operators import Operator
from .result import Measured, Result, stages_of
from .rounds import Seconds, by_stage

_GIB = 2**30
_SHOWN = 12  # operators of a backend
_NOTHING = "–"


def text_of(result: Result) -> str:
    """The whole report, with a newline at its end."""
    parts = ["\n".join(_head(result)), _aligned(_times(result)), _aligned(_speeds(result)), _aligned(_summary(result))]
    parts += [_aligned(_operators(result, backend)) for backend in result.backends if backend.operators]
    return "\n\n".join(parts) + "\n"


def _head(result: Result) -> Iterator[str]:
    machine = result.machine
    place = f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads"
    yield place + (f"; {machine['device']}" if "device" in machine else "")
    yield f"PyTorch {machine['torch']}, ONNX Runtime {machine['onnxruntime']}; {machine['kernels']}"
    for precision, speed in result.gemm.items():
        bound = f"bound of a frame's {result.total_flops / 1e12:.3g} TFLOP: {_seconds(result.bound(precision))} s"
        yield f"GEMM {precision}: {speed.flops / 1e9:,.0f} GFLOP/s ({speed.how}); {bound}"
    for backend in result.backends:
        yield f"{backend.name}: {backend.described}"
    rounds = min(len(backend.laps) for backend in result.backends)
    measured = f"{rounds} {'round' if rounds == 1 else 'rounds'} after {result.warmup} of warm-up"
    yield f"{result.frame}; {measured}; median, least and interquartile range (iqr)"


def _times(result: Result) -> Iterator[list[str]]:
    """Rows: stages; three columns a backend."""
    tables = [by_stage(backend.laps) for backend in result.backends]
    yield ["seconds", *(title for backend in result.backends for title in (backend.name, "least", "iqr"))]
    for stage in stages_of(result.backends):
        yield [stage, *(cell for table in tables for cell in _cells(table.get(stage)))]


def _cells(seconds: Seconds | None) -> tuple[str, str, str]:
    if seconds is None:
        return _NOTHING, _NOTHING, _NOTHING
    return _seconds(seconds.median), _seconds(seconds.least), _seconds(seconds.spread)


def _speeds(result: Result) -> Iterator[list[str]]:
    """Rows: stages with arithmetic, as the backend does it; three columns a backend."""
    tables = [by_stage(backend.laps) for backend in result.backends]
    yield ["GFLOP/s", *(title for backend in result.backends for title in (backend.name, "of GEMM", "GFLOP"))]
    for stage in stages_of(result.backends):
        if not any(backend.flops_of(stage) for backend in result.backends):
            continue
        row = [stage]
        for backend, table in zip(result.backends, tables, strict=True):
            flops = backend.flops_of(stage)
            row += [*_speed(result, backend, flops, table[stage].median if stage in table else 0.0), f"{flops / 1e9:,.1f}"]
        yield row


def _speed(result: Result, backend: Measured, flops: int, seconds: float) -> list[str]:
    if not flops or seconds <= 0:
        return [_NOTHING, _NOTHING]
    speed = flops / seconds
    return [f"{speed / 1e9:,.0f}", f"{result.fraction(backend, speed):.0%}"]


def _summary(result: Result) -> Iterator[list[str]]:
    first = result.backends[0].name
    yield ["whole frame", "times as fast", "of the bound", "peak memory", f"labels as of {first}"]
    for backend in result.backends:
        peak = _NOTHING
        if backend.peak is not None:
            peak = f"{backend.peak.process / _GIB:.2f} GiB" + (f" + {backend.peak.device / _GIB:.2f} GiB" if backend.peak.device else "")
        same = _NOTHING if backend is result.backends[0] else "not compared: other weights or scales"
        yield [
            backend.name,
            f"{result.times(backend):.2f}",
            f"{result.of_bound(backend):.0%}",
            peak,
            backend.labels.describe() if backend.labels else same,
        ]


def _operators(result: Result, backend: Measured) -> Iterator[list[str]]:
    """The slowest; the others in one row."""
    total = sum(each.seconds for each in backend.operators) or 1.0
    shown, others = backend.operators[:_SHOWN], backend.operators[_SHOWN:]
    if others:
        rest = f"{len(others)} others"
        sums = (sum(each.calls for each in others), sum(each.seconds for each in others), sum(each.flops for each in others))
        shown = (*shown, Operator(rest, *sums))
    yield [f"operators of {backend.name}", "calls", "seconds", "share", "GFLOP/s", "of GEMM"]
    for each in shown:
        speed = _speed(result, backend, each.flops, each.seconds)
        yield [each.name, str(each.calls), _seconds(each.seconds), f"{each.seconds / total:.1%}", *speed]


def _seconds(seconds: float) -> str:
    """Three digits that say something: 12.3, 1.23, 0.123, 0.0012."""
    return f"{seconds:.1f}" if seconds >= 9.995 else f"{seconds:.2f}" if seconds >= 0.9995 else f"{seconds:.4f}"


def _aligned(rows: Iterator[list[str]]) -> str:
    """Numbers to the right; the first column, and a last one of text, to the left."""
    table: Sequence[list[str]] = list(rows)
    return aligned(table, (0, -1) if table[0][-1].startswith("labels") else (0,))
