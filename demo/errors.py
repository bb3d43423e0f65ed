"""Errors of the demo."""


class CallFailed(Exception):
    """A call cannot be held or completed; the message is one plain sentence for the user at the terminal."""
