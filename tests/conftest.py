"""Files that many tests look at: exported once for each worker, through the real command line. A group of tests stays on one worker."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

# A runner may have been started with signals ignored (nohup, a background job); the tests and their children want the usual ones.
if threading.current_thread() is threading.main_thread():
    for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(_number) is signal.SIG_IGN:
            signal.signal(_number, _usual)

GROUPS = {  # fixture → the worker's group, the first that a test uses counts: what shares a trace belongs together
    "tables_export": "tables",
    "fixed_export": "fixed",
    "runtime_export": "runtime",
    "functions_export": "runtime",
    "standard_export": "runtime",
    "traces": "runtime",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups the tests by the exports that they use, for `--dist loadgroup`."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})  # for `request.getfixturevalue`
        used = {*getattr(item, "fixturenames", ()), *map(str, parameters.values())}
        if item.get_closest_marker("xdist_group"):
            continue
        group = next((group for name, group in GROUPS.items() if name in used), None)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def tiny_network():
    """The tiny network, its spec and its frame; not to be changed."""
    from exporting import seeded_network

    return seeded_network()


@pytest.fixture(scope="session")
def traces():
    """See `TraceOnce`."""
    from exporting import TraceOnce

    return TraceOnce()


@pytest.fixture
def quick(traces, monkeypatch) -> None:
    """Exports in this test trace each network once in a session."""
    monkeypatch.setattr("occport.export.build.trace", traces)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Iterator[Path]:
    """Where exported files lie; emptied at the end, as each has 100 MB."""
    folder = tmp_path_factory.mktemp("exports")
    yield folder
    shutil.rmtree(folder)


def _export(folder: Path, traces, *flags: str):
    from exporting import export

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("occport.export.build.trace", traces)
        return export(folder, *flags)


@pytest.fixture(scope="session")
def runtime_export(workshop, traces):
    """As the bring-up document has it: dialect dl, opset 11, calibration runtime."""
    return _export(workshop / "runtime", traces)


@pytest.fixture(scope="session")
def functions_export(workshop, traces):
    """Opset 17 with function bodies."""
    return _export(workshop / "functions", traces, "--opset", "17", "--functions")


@pytest.fixture(scope="session")
def standard_export(workshop, traces):
    """Standard operators only, opset 20."""
    return _export(workshop / "standard", traces, "--dialect", "standard", "--opset", "20")


@pytest.fixture(scope="session")
def tables_export(workshop, traces):
    """Calibration tables."""
    return _export(workshop / "tables", traces, "--calibration", "tables")


@pytest.fixture(scope="session")
def fixed_export(workshop, traces):
    """Calibration fixed."""
    return _export(workshop / "fixed", traces, "--calibration", "fixed")


@pytest.fixture(scope="session")
def small_dl_bytes() -> bytes:
    """`small_graphs.network` as a right dl file at opset 11: a_msda, b_msda and conv."""
    import onnx_ir as ir

    from occport.graph import dialect
    from occport.graph.rewrite import to_dialect
    from small_graphs import network

    model, _ = network()
    to_dialect(model, dialect.load("dl"), 11, functions=False)
    return ir.to_proto(model).SerializeToString()


@pytest.fixture(scope="session")
def probes(tmp_path_factory) -> Path:
    """Probes around dl, written once for each worker; tests work on copies."""
    from occport.graph import dialect
    from occport.kit.probe.write import write_probes

    folder = tmp_path_factory.mktemp("probes") / "dl"
    write_probes(folder, dialect.load("dl"))
    return folder
