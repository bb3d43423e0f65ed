"""The whole template on one machine without Docker: gateway, workers, poller, clocks, and stand-ins for services."""
