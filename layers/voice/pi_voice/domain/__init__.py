"""Rules and models of the product. Imports nothing of ours but itself, and no SDK."""
