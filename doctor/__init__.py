"""`make doctor`: check that the services and keys of an environment, or of a deployed stack, can hold a call."""
