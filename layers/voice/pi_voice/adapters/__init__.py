"""Implementations of the ports. Only they import SDKs."""
