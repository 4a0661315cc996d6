"""The cost of the network as it is written, whatever an exporter has made of it: what papers and data sheets speak of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...export.network_file import NetworkFile


@dataclass(frozen=True)
class NetworkCost:
    """The network on the rig of the export.

    Attributes:
        parameters: numbers that are trained, those of the normalisations among them.
        macs: stage → products, and four for each sampled number; slots as this rig needs them, without the budgets' reserve.
    """

    parameters: int
    macs: Mapping[str, int]

    @property
    def total(self) -> int:
        """Of all stages."""
        return sum(self.macs.values())


def network_cost(file: NetworkFile) -> NetworkCost | None:
    """Counts the manifest's network without computing it; None for a file of another origin."""
    spec, manifest = file.spec, file.manifest
    if spec is None or manifest is None:
        return None
    from ...measure.flops import flops_of_stages, parameters_of

    rig = manifest["frame"]["lidar2img"]
    flops = flops_of_stages(spec.config, (1, spec.config.num_cameras, 3, *spec.image_hw), rig)
    return NetworkCost(parameters_of(spec.config), {stage: count // 2 for stage, count in flops.items()})
