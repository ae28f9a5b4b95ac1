"""Everything but the network, the loss, the data and the scripts; see support/README.md.

Scripts import these rooms; no room imports a script, and none but `cli.py` knows a flag.
"""


class UserError(Exception):
    """Something that the user can put right: the message says what is wrong with which file or
    value, and what to do. A script prints it as its last line and exits with `code`."""

    code = 2


class NotFinite(Exception):
    """A loss or weights that are no longer finite; otherwise as `UserError`."""

    code = 3


class Interrupted(BaseException):
    """A signal that ends a script early, which is no error.

    Args:
        message: what was saved.
        signum: of SIGINT or SIGTERM.
    """

    def __init__(self, message, signum):
        super().__init__(message)
        self.code = 128 + signum
