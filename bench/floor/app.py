"""The floor: a handler that imports nothing and does nothing. Whatever it takes, nobody gets below it."""


def handler(_event: object, _context: object) -> dict[str, object]:
    """Answer."""
    return {"statusCode": 200, "headers": {}, "body": ""}
