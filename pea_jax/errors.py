"""The exceptions that users are meant to read."""


class PeaError(Exception):
    """A mistake in the user's input. The message is one line: what is wrong, where, and what to do.

    Commands print `error: <message>` and exit with status 1; anything else is a bug and keeps its traceback.
    """


class BadSample(PeaError):
    """One sample cannot be used; training takes another in its place, and counts it."""


class Stalled(PeaError):
    """A thread hangs; the process must not wait for it to end."""
