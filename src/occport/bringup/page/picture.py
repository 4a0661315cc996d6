"""A picture inside a page."""

from __future__ import annotations

import base64
from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A PNG or SVG image with what it shows.

    Attributes:
        title: a few words above it.
        alt: what it shows, for who does not see it.
        content: bytes of a PNG file, or text of an <svg> element.
    """

    title: str
    alt: str
    content: bytes | str

    @property
    def address(self) -> str:
        """As a data: URI. An image cannot run scripts, and its names and styles stay its own."""
        kind, content = ("png", self.content) if isinstance(self.content, bytes) else ("svg+xml", self.content.encode())
        return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
