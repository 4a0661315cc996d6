"""Pages from templates: one look, everything inside one file, nothing fetched from anywhere, every text escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import words

FOLDER = Path(__file__).parent
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def render(template: str, values: Mapping[str, object]) -> str:
    """A self-contained page.

    Every text is escaped. The page's policy lets the browser fetch nothing, and run the page's own script alone (by its hash), so that
    not even a mistake in a template would let a name in a model do anything.

    Args:
        template: name of a file in this folder.
        values: what the template names; one that is missing is our own bug and raises jinja2's UndefinedError.

    Returns: HTML, the same for the same values.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters.update(words.FILTERS)
    look = (FOLDER / "look.css").read_text(encoding="utf-8")
    script = _SCRIPT.search((FOLDER / "script.html").read_text(encoding="utf-8"))
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    return environment.get_template(template).render({**values, "look": look, "script": script[1], "script_hash": digest})
