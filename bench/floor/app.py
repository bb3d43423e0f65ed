"""The floor: a handler that imports nothing and does nothing. Its time is the lower bound of a cold start."""


def handler(_event: object, _context: object) -> dict[str, object]:
    """Return an empty response."""
    return {"statusCode": 200, "headers": {}, "body": ""}
