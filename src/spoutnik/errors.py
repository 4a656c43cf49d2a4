"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A fault of input, not of the program: the message is one sentence saying what was found, what was expected and what to do.

    The command line prints it without a traceback and exits with status 1.
    """
