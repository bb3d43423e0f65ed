"""What keeps the local stack from starting."""


class CannotStart(Exception):
    """A reason not to start, as one plain sentence for the person at the terminal."""
