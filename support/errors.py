"""The exceptions that a script turns into its last line and its exit code."""


class UserError(Exception):
    """Something that the user can put right.

    The message says what is wrong with which file or value, what was expected, and what to do. A
    script prints it as its last line and exits with `code`.
    """

    code = 2


class OtherRunError(UserError):
    """A folder holds another run than the one that is to begin or to continue there."""


class NotFiniteError(Exception):
    """A loss or weights that are no longer finite; otherwise as `UserError`."""

    code = 3


class Interrupted(BaseException):
    """A signal that ends a script early, which is no error.

    Args:
        message: what was saved.
        signum: the signal, SIGINT or SIGTERM.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.code = 128 + signum
