"""Errors of the local stack."""


class CannotStart(Exception):
    """The stack cannot start; the message is one plain sentence for the user at the terminal."""
