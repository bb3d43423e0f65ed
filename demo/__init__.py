"""`make demo`: a whole call, held as a client holds it, against the stack on this machine or the real services."""
