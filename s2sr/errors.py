"""The exception that users see as one line: what is wrong, in which file, with which values, and what to do."""


class InputError(ValueError):
    """The configuration or the data cannot be used as they are."""
