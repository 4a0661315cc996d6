"""Model and operators assume no CPU: on PyTorch's "meta" device a whole network runs, and no operation mixes devices."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from occport.model.prepared import prepared
from occport.model.projection import Budget
from test_surroundocc import HW, images, micro_model, rigs

BUDGETS = [Budget(64, 3), Budget(32, 3), Budget(16, 3)]


def tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    return [tensor for part in parts for tensor in tensors(part)]


class OneDevice(TorchDispatchMode):
    """Every operation gets tensors of the "meta" device; single numbers may be the CPU's, as they may on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tensors([args, kwargs or {}])
        wrong = [tensor for tensor in given if tensor.dim() and tensor.device.type != "meta"]
        constant = func in (torch.ops.aten._to_copy.default, torch.ops.aten.lift_fresh.default, torch.ops.aten.detach.default)
        assert not wrong or constant, f"{func} got {[(tuple(tensor.shape), tensor.device) for tensor in given]}"
        self.seen += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", (None, "fp32", "bf16", "fp16"), ids=("plain", "fp32", "bf16", "fp16"))
def test_a_whole_network_on_another_device(precision):
    model = copy.deepcopy(micro_model())
    model = (model if precision is None else prepared(model, precision)).to("meta")
    with OneDevice() as watch, torch.no_grad():
        tables, dropped = model.tables(rigs((4.0,)).to("meta"), HW, BUDGETS)
        logits = model.logits(images(1).to("meta"), tables)
    assert watch.seen > 300
    assert {tensor.device.type for tensor in (*logits, dropped, *tables[0])} == {"meta"}
    assert {tensor.dtype for tensor in logits} == {torch.float32}


def test_a_mixed_operation_is_caught():
    with pytest.raises(AssertionError, match=r"aten\.add"), OneDevice():
        torch.zeros(3, device="meta") + torch.zeros(3)
