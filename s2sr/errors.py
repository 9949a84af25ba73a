"""The one exception that is shown to the user as a single line: what, which file, which values, what to do."""


class InputError(ValueError):
    """The configuration or the data cannot be used as they are."""
