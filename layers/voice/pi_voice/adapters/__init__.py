"""One module per service: the only places that import an SDK."""
