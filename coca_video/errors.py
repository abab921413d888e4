"""The one exception a user is meant to read."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the file or key, what was found and what was allowed.
    Every command prints it without a traceback and exits with code 2 (`coca_video.cli.run`).
    """
