"""A file's custom nodes in another target's words: raised to the canonical form, lowered to the other dialect, checked node by node.

Nothing but the custom nodes and what makes their inputs is changed; weights go from file to file without passing through memory.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import onnx
import onnx_ir as ir

from ...errors import ExportError, ModelFileError, VerificationFailed
from ...progress import Progress
from ...staging import Staging
from .. import canonical
from ..bodies.body import check_form
from ..dialect import Dialect
from ..forms import PORT_FORMS, SCALARS, obtainable
from ..functions import OPSETS_IN_FILES, Arithmetics
from ..lower import lower
from ..model_file import read_skeleton, write_model
from ..opset import FIRST_IR_WITH_FUNCTIONS
from ..rewrite import attach_functions, chosen
from ..twin import checkable, from_twin, proto_to_twin
from .check import Checked, Side, check_nodes
from .foreign_file import Foreign, named, read_foreign
from .raising import drop_unread, raise_model, skip_reshapes
from .shared_points import rename_attention, same_cut
from .standard_nodes import inline_alone

STAGES = 4
NOTE = "occport.retargeted"  # metadata: from which dialect to which


class Wish(NamedTuple):
    """What the file is to become."""

    to: str
    origin: str | None = None  # None: found by the names of the nodes
    arithmetics: Arithmetics = Arithmetics()
    functions: bool = False
    external_data: bool = False


class Result(NamedTuple):
    """What was written and how it was checked."""

    files: tuple[Path, ...]
    origin: str
    to: str
    checked: tuple[Checked, ...]
    others: tuple[str, ...]  # custom operators that are not of the dialect, left as they are


def retarget(source: Path, target: Path, wish: Wish, progress: Progress) -> Result:
    """Writes `target`, which is `source` with the custom nodes of another dialect.

    Args:
        source: an ONNX file of any origin, opset 11 to 22.
        target: another file; it, and its `.data` file if there is one, appear only when every check has passed.
        wish: the dialects and the form.

    Raises:
        ModelFileError: the source is not what its dialect says, or does not hold what the target's nodes take.
        ExportError: the wish cannot be.
        VerificationFailed: a node gives other numbers than before.
    """
    goal = named(wish.to, "--to")
    if target.suffix != ".onnx":
        raise ExportError(f"output file {target}", expected="a name that ends in .onnx", got=target.name)
    if target.resolve() == source.resolve():
        raise ExportError(f"output file {target}", expected="another file than the input", got="the same", fix="choose another name")
    with progress.stage(f"reading {source.name}"):
        foreign = read_foreign(source, wish.origin)
        _refuse_own_weights(foreign, target)
        check_wish(goal, foreign.opset, wish)
    with progress.stage(f"{foreign.dialect.name} → {goal.name}"):
        model = ir.from_proto(foreign.model)
        ir.external_data.set_base_dir(model.graph, foreign.folder)
        before = Side(ir.to_proto(model), foreign.folder, foreign.dialect)
        rewrite(model, foreign, goal, wish)
    with Staging(target.parent) as stage:
        with progress.stage(f"writing {target.name}"):
            write_model(model, stage.path / target.name, external_data=wish.external_data)
        with progress.stage("checking every node"):
            skeleton = read_skeleton(stage.path / target.name)
            proto_to_twin(skeleton, goal)
            after = Side(skeleton, stage.path, goal)
            in_file = goal.msda is None or wish.functions  # else the fastest that ONNX Runtime has
            checked = check_nodes(before, after, chosen(foreign.opset, wish.arithmetics) if in_file else None)
            wrong = [one.describe() for one in checked if not one.passed]
            failures = [*_changed_ends(before.model, skeleton), *_broken(before, after), *wrong]
            for line in failures:
                progress.say(f"FAILED {line}")
            if failures:
                raise VerificationFailed(failures)
        files = stage.commit()
    return Result(tuple(files), foreign.dialect.name, goal.name, tuple(checked), foreign.others)


def _refuse_own_weights(foreign: Foreign, target: Path) -> None:
    """ExportError where the new file, or its `.data`, would take the place of a file from which the source's weights are read."""
    external = [entry.value for tensor in foreign.model.graph.initializer for entry in tensor.external_data if entry.key == "location"]
    taken = {(foreign.folder / location).resolve() for location in external}
    for path in (target, target.with_name(f"{target.name}.data")):
        if path.resolve() in taken:
            expected, fix = "another file than the input's weights", "choose another name"
            raise ExportError(f"output file {path}", expected=expected, got="the same", fix=fix)


def rewrite(model: ir.Model, foreign: Foreign, goal: Dialect, wish: Wish) -> None:
    """Brings the nodes of `model`, in memory's domains, to the goal's, as they stand in a file; in place. Errors as `retarget`."""
    origin, wide, before = foreign.dialect, needs_wide(goal), set(model.graph)
    if origin.msda is not None and goal.msda is not None and same_cut(origin.msda, goal.msda):
        rename_attention(model, origin.msda, goal.msda)
        origin = replace(origin, msda=None)
    raise_model(model, origin, wide=wide)
    narrow = [node for node in model.graph if (node.domain, node.op_type) == (canonical.DOMAIN, canonical.SAMPLED)]
    if wide and narrow:
        assert goal.msda is not None and origin.msda is not None
        shared = any(port.form == "reference_points_shared" for port in origin.msda.inputs)
        raise ModelFileError(
            f"{narrow[0].name} as {goal.msda.title}",
            expected="offsets and logits: an Add and a Softmax directly in front of the node",
            got="reference points that points or levels share" if shared else "locations and weights of another origin",
            fix="choose a target that takes locations and weights",
        )
    if goal.msda is None:
        inline_alone(model, foreign.opset, wish.arithmetics)
    else:
        canonical_inputs = [value for node in model.graph if node.domain == canonical.DOMAIN for value in node.inputs if value is not None]
        lower(model, goal)
        drop_unread(model.graph, canonical_inputs)
        skip_reshapes(model.graph, [node for node in model.graph if node not in before])
        if wish.functions:
            attach_functions(model, goal, foreign.opset, wish.arithmetics)
            model.ir_version = max(model.ir_version, FIRST_IR_WITH_FUNCTIONS)
        from_twin(model)
    past = model.metadata_props.get(NOTE, "")
    begin = past if past.endswith(f" {foreign.dialect.name}") else foreign.dialect.name
    model.metadata_props[NOTE] = f"{begin} → {goal.name}"


def needs_wide(goal: Dialect) -> bool:
    """True for a dialect whose attention takes what stands before the softmax, or before the locations."""
    if goal.msda is None:
        return False
    narrow = {form for name in canonical.SAMPLED_INPUTS for form in obtainable([name])}
    return any(not set(PORT_FORMS[port.form].needs) <= narrow for port in goal.msda.inputs if port.form not in SCALARS)


def check_wish(goal: Dialect, opset: int, wish: Wish) -> None:
    """ExportError for flags that cannot be together at the file's opset."""
    if wish.functions and (goal.msda is None or goal.in_empty_domain):
        raise ExportError(
            "--functions", expected="a target whose nodes have a domain, as no body can stand in ONNX's own", got=goal.name,
            fix="leave --functions out",
        )  # fmt: skip
    if wish.functions and opset not in OPSETS_IN_FILES:
        raise ExportError(
            "--functions", expected=f"a file of opset {OPSETS_IN_FILES[0]} or later, where GridSample is standard", got=f"opset {opset}",
            fix="leave --functions out",
        )  # fmt: skip
    for operator, form in wish.arithmetics._asdict().items():
        if not form:
            continue
        if goal.msda is not None and not wish.functions:
            fix = "give --to standard, or --functions"
            raise ExportError(f"--{operator} {form}", expected="a target that holds arithmetic", got=goal.name, fix=fix)
        try:
            check_form(operator, form, opset, what=f"--{operator}")
        except ExportError as error:  # its advice is for `export`, where the opset can be chosen
            fix = f"leave --{operator} out for the best form of the file's opset"
            raise ExportError(error.what, expected=error.expected, got=error.got, fix=fix) from error


def census(checked: tuple[Checked, ...]) -> list[str]:
    """A line for each operator: how many nodes, and the worst of them."""
    counts = Counter(one.operator for one in checked)
    worst = {name: max((one for one in checked if one.operator == name), key=lambda one: one.share / one.tolerance) for name in counts}
    said = {name: f", worst {one.describe()}" if one.share else ": the same to the last bit" for name, one in worst.items()}
    return [f"{count} x {name}{said[name]}" for name, count in counts.items()]


def _changed_ends(before: onnx.ModelProto, after: onnx.ModelProto) -> list[str]:
    """The inputs and outputs of the whole graph must be what they were."""
    failures = []
    for kind in ("input", "output"):
        want, got = ([info.name for info in getattr(model.graph, kind)] for model in (before, after))
        if got != want:
            failures.append(f"{kind}s: expected {', '.join(want)}, got {', '.join(got)}")
    return failures


def _broken(before: Side, after: Side) -> list[str]:
    """What ONNX's checker says against the new file, unless it had the like to say against the old one."""
    found = [_objection(side) for side in (before, after)]
    return [] if found[0] else [f"onnx.checker: {line}" for line in found[1:] if line]


def _objection(side: Side) -> str:
    try:
        onnx.checker.check_model(checkable(side.model, side.dialect))
    except onnx.checker.ValidationError as error:
        return str(error).strip().splitlines()[0]
    return ""
