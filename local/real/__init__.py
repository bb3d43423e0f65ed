"""Real servers and programs, in place of stand-ins, for tests and measurements."""
