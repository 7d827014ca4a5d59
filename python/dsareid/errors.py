"""The one exception that users cause."""


class DSAError(Exception):
    """Something outside the program is not as it must be: a file, a folder, a setting.

    The message names the file or argument, what was expected and what came. The command line
    prints it as one line and exits with status 1; library users catch it as any exception.
    """
