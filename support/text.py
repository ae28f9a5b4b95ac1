"""Text that is not ours (names of files, members of archives, classes), made safe to print."""

LONGEST = 200


def printable(text: str) -> str:
    """Returns text with control characters made visible; long text is shortened in the middle."""
    shown = visible(text)
    if len(shown) > LONGEST:
        return f"{shown[:90]}...{shown[-100:]}"
    return shown


def visible(text: str) -> str:
    """Returns text of any length with control characters as escapes.

    Those in the name of a file could otherwise move the cursor, or clear the screen.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
