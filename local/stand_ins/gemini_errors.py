"""Errors in Google's format."""

from typing import Any, Final

_STATUSES: Final = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}


class GeminiError(Exception):
    """An error response with Google's code, status and message."""

    def __init__(self, code: int, message: str, *details: dict[str, Any]) -> None:
        super().__init__(message)
        self.code = code
        self.details = details

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body of the response."""
        error = {"code": self.code, "message": str(self), "status": _STATUSES[self.code]}
        return {"error": {**error, **({"details": list(self.details)} if self.details else {})}}
