"""How the network runs in PyTorch: on which device, in which precision, and what slows it down there."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from ..errors import UserError
from ..model.prepared import DTYPES, PRECISIONS, prepare_, prepared
from ..model.surroundocc import SurroundOcc
from ..ops import native

EXACT = "fp32"
SWITCH = "OCCPORT_KERNELS"  # the variable that switches the native kernels off


@dataclass(frozen=True)
class Setting:
    """A precision of `model.prepared.PRECISIONS`, and a device as PyTorch calls it: "cpu", "cuda", "cuda:1". Can be pickled."""

    precision: str = EXACT
    device: str = "cpu"

    @property
    def exact(self) -> Setting:
        """The same device in float32."""
        return replace(self, precision=EXACT)

    @property
    def described(self) -> str:
        """PyTorch bfloat16 on cuda:0; the CPU is not named."""
        dtype = str(DTYPES[self.precision]).removeprefix("torch.")
        return f"PyTorch {dtype}" + ("" if self.device == "cpu" else f" on {self.device}")

    def check(self) -> torch.device:
        """The device. Errors: UserError for one that is not there, an unknown precision, and fp16 on a CPU."""
        if self.precision not in PRECISIONS:
            raise UserError("precision", expected=f"one of {', '.join(PRECISIONS)}", got=str(self.precision))
        place = device_of(self.device)
        if place.type == "cpu" and self.precision == "fp16":
            fix = "bf16 is the fast one of a CPU, fp16 that of a GPU"
            raise UserError("precision on a CPU", expected="fp32 or bf16", got="fp16", fix=fix)
        return place

    def ready(self, model: SurroundOcc, *, own: bool = False) -> SurroundOcc:
        """The network on this device, made ready for inference (`model.prepared`).

        Args:
            model: in eval mode, float32.
            own: it belongs to the caller, who needs it no longer as it is: then it is changed in place. Else it is copied.

        Errors: as `check`, and UserError for a network that cannot be made ready, and for too little memory on the device.
        """
        place = self.check()
        try:
            if own:
                return prepare_(model.to(place), self.precision)
            if next(model.parameters()).device == place:
                return prepared(model, self.precision)
            return prepare_(copy.deepcopy(model).to(place), self.precision)
        except ValueError as error:
            raise UserError("a network that is to run in PyTorch", got=str(error), fix="hand over the plain one") from error
        except torch.OutOfMemoryError as error:
            raise _too_small(place) from error


def device_of(name: str) -> torch.device:
    """A device that this PyTorch has and that is there; "cuda" means the first. Errors: UserError for any other name, with those."""
    names = devices()
    found = next((each for each in names if name in (each, each.removesuffix(":0"))), None)
    if found is None:
        fix = "a GPU needs its driver and a PyTorch build for it" if names == ["cpu"] else ""
        raise UserError(f"device {name}", expected=f"a device of this PyTorch: {', '.join(names)}", got="none of that name", fix=fix)
    return torch.device(found)


def devices() -> list[str]:
    """Names of the devices that are there: the CPU, and each accelerator with its number."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    return ["cpu", *(f"{kind.type}:{number}" for number in range(torch.accelerator.device_count()))] if kind is not None else ["cpu"]


@contextmanager
def running(place: torch.device) -> Iterator[None]:
    """For a `with` block around a run: no gradients, and float32 that is float32.

    cuDNN's own choice for a float32 convolution is TF32, whose 10 bits no comparison here would forgive. The setting is put back.
    Errors: UserError where the memory of the device does not suffice.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.no_grad():
            yield
    except torch.OutOfMemoryError as error:
        raise _too_small(place) from error
    finally:
        torch.backends.cudnn.allow_tf32 = before


def hint(place: torch.device) -> str:
    """One line where the native kernels could run but are not there; "" where they are, where they are switched off, and off the CPU.

    The kernels are built here if they are not yet.
    """
    if place.type != "cpu" or native.find().library is not None or SWITCH in native.status():
        return ""
    return native.status()


def _too_small(place: torch.device) -> UserError:
    fix = "a lower --precision takes less, the CPU has more"
    return UserError(f"memory of {place}", expected="room for the network and one frame", got="too little that is free", fix=fix)
