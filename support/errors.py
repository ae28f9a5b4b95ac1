"""The exceptions that a script turns into its last line of output and its exit code."""


class UserError(Exception):
    """A problem that the user can fix.

    The message says what is wrong with which file or value, what was expected, and what to do. A
    script prints it as its last line, and exits with `code`.
    """

    code = 2


class OtherRunError(UserError):
    """A folder holds another run, not the one that is to start or continue there."""


class NotFiniteError(Exception):
    """The loss or the weights became NaN or infinite; used like `UserError`."""

    code = 3


class Interrupted(BaseException):
    """A signal ended a script early, which is not an error.

    Args:
        message: what was saved, and how to continue.
        signum: the number of the signal.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.code = 128 + signum
