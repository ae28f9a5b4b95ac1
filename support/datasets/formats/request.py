"""What the reader of one format is asked to read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from support.datasets.entries import Entry

EMNIST_NOTICE = (
    "EMNIST's images lie on their sides: they were turned upright (--no-transpose leaves them as "
    "they are)"
)


@dataclass
class Request:
    """The files of one format, and what is known about them.

    Attributes:
        entries: the files that the format recognizes.
        unknown: files that no format recognizes.
        where: the folder, archive or file that holds them, for messages.
        transpose: whether to exchange the rows and columns of the images; None: only if the names
            of the files say that they are EMNIST's.
        notices: lines for the user, to which the reader may append.
    """

    entries: list[Entry]
    unknown: list[Entry]
    where: str
    transpose: bool | None = None
    notices: list[str] = field(default_factory=list)

    def turned_if_asked(self, _names: Iterable[str]) -> bool:
        """Like `turned`, for formats in which the name EMNIST is not evidence.

        Whoever saved EMNIST in another format than its own may have turned it upright.
        """
        return bool(self.transpose)

    def turned(self, names: Iterable[str]) -> bool:
        """Whether to exchange the rows and columns of the images, as in EMNIST's own files."""
        if self.transpose is not None:
            return self.transpose
        if any("emnist" in name.lower() for name in names):
            self.notices.append(EMNIST_NOTICE)
            return True
        return False
