"""Run the whole template on one machine without Docker: gateway, workers, poller, scheduler, service stand-ins."""
