"""What the reader of one format is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from support.datasets.entries import Entry

EMNIST_NOTICE = (
    "EMNIST's images lie on their sides: they were turned upright (--no-transpose leaves them so)"
)


@dataclass
class Request:
    """The files of one format, and what is known about them.

    Attributes:
        entries: the files that the format recognizes.
        unknown: files that no format recognizes.
        where: the folder, archive or file that holds them, for messages.
        transpose: whether rows and columns of images are to be exchanged; None: as the names of
            the files say.
        notices: lines for the user; grows.
    """

    entries: list[Entry]
    unknown: list[Entry]
    where: str
    transpose: bool | None = None
    notices: list[str] = field(default_factory=list)

    def turned_if_asked(self, _names: Iterable[str]) -> bool:
        """As `turned`, where names are no evidence.

        Who saved EMNIST in a format of one's own may have turned it upright.
        """
        return bool(self.transpose)

    def turned(self, names: Iterable[str]) -> bool:
        """Whether rows and columns of images are to be exchanged; EMNIST's own are."""
        if self.transpose is not None:
            return self.transpose
        if any("emnist" in name.lower() for name in names):
            self.notices.append(EMNIST_NOTICE)
            return True
        return False
