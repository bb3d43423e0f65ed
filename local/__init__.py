"""The whole template on one machine without Docker: gateway, workers, and stand-ins for the three services."""
