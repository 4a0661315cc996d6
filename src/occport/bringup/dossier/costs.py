"""What a file costs, and on a chip how long it would take at best."""

from __future__ import annotations

from ...export.network_file import NetworkFile
from ..cost.charts import svg
from ..cost.chip import Chip
from ..cost.cost import cost_of
from ..cost.roofline import roofline
from ..page.picture import Picture
from .section import Told


def costs(file: NetworkFile, chip: Chip | None, precision: str) -> Told:
    """Counts a file by its shapes.

    Args:
        precision: a dtype that all numbers but the geometry's would have on the chip; "" for those of the file.

    Errors: ModelFileError where a custom node is not as its contract says or sizes are missing; UserError without matplotlib.
    """
    cost = cost_of(file)
    found = roofline(cost, chip, precision) if chip is not None else None
    title = f"Every node on {found.chip.name}, and the stages" if found is not None else "Every node by its intensity, and the stages"
    shares = ", ".join(f"{row.name} {row.macs / 1e9:,.3g} GMAC" for row in cost.rows("stage"))
    chart = Picture(title, f"Chart of the cost; products by stage: {shares}", svg(cost, found))
    return Told({**cost.to_json(), "roofline": found.to_json() if found is not None else None}, (chart,))
