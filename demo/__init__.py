"""`make demo`: hold a whole call as a client does, with the local stack or with real services."""
