"""A section of a dossier: what it tells as JSON values, the pictures beside them, or why it tells nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import UserError
from ..page.picture import Picture

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Told:
    """What a section tells.

    Attributes:
        content: JSON values.
        pictures: of the page alone.
    """

    content: Content
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        key: its name in the JSON file and its place in the page.
        content: finite JSON values; None where there is nothing to tell.
        reason: why there is nothing, in one line; else "".
        pictures: of the page alone.
    """

    key: str
    content: Content | None
    reason: str = ""
    pictures: tuple[Picture, ...] = ()


def section(key: str, tell: Callable[[], Told], named: tuple[type[UserError], ...] = ()) -> Section:
    """Calls `tell`. What the user can mend (a frame that is gone, a file of another origin) is told in the section, and ends nothing.

    Errors: those of `named`, as they are about something that the user has named.
    """
    try:
        told = tell()
    except named:
        raise
    except UserError as error:
        return Section(key, None, str(error))
    return Section(key, finite(told.content), "", told.pictures)


def finite(value: Any) -> Any:
    """JSON values without what JSON does not have: nan and infinities become None; tuples lists, keys texts."""
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
