"""Pi Voice: one voice call, two real-time connections, and results one can trust."""
