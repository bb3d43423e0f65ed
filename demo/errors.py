"""What ends a demo early."""


class CallFailed(Exception):
    """A call that cannot be held or not be ended, as one plain sentence for the person at the terminal."""
