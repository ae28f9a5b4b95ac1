"""A progress bar for work on many images, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

# Fewer images take too little time for a bar.
MANY = 500

Item = TypeVar("Item")


def shown(items: Sequence[Item], text: str) -> Iterator[Item]:
    """Yields `items`; shows a bar on stderr if there are many and stderr is a terminal."""
    if len(items) < MANY or not sys.stderr.isatty():
        yield from items
        return
    from rich import console, progress

    screen = console.Console(stderr=True)
    yield from progress.track(items, text, console=screen, transient=True)
