"""Rules and models. Imports no SDK and no other layer."""
