"""Stand-ins for LiveKit and Gemini, which refuse what the real services refuse."""
