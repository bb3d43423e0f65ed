"""What is checked: the functions' variables, the webhook's URL, and the commands that change them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

PARAMETERS: Final[Mapping[str, str]] = {
    "LIVEKIT_URL": "LiveKitUrl",
    "GEMINI_LIVE_MODEL": "GeminiLiveModel",
    "GEMINI_LIVE_THINKING_LEVEL": "GeminiLiveThinkingLevel",
    "GEMINI_TRANSCRIPTION_HINTS": "GeminiTranscriptionHints",
    "GEMINI_EXTRACTION_MODEL": "GeminiExtractionModel",
    "GEMINI_EXTRACTION_THINKING_LEVEL": "GeminiExtractionThinkingLevel",
    "GEMINI_API_VERSION": "GeminiApiVersion",
    "GOOGLE_GEMINI_BASE_URL": "GeminiBaseUrl",
}
"""The template's parameter of each variable that a check reads."""

_SECRETS: Final = (
    "GEMINI_API_KEY",
    "LIVEKIT_API_SECRET",
    "LIVEKIT_WEBHOOK_API_SECRET",
    "LIVEKIT_WEBHOOK_PREVIOUS_API_SECRET",
    "CLIENT_TOKEN_SECRET",
    "CLIENT_TOKEN_PREVIOUS_SECRET",
    "CLIENT_TOKEN_NEXT_SECRET",
)


@dataclass(frozen=True, slots=True)
class Target:
    """The variables of the functions, secrets included, and where they come from."""

    variables: Mapping[str, str]
    webhook_url: str
    stack: str | None = None
    """Name of the deployed stack; None if the variables are those of the environment."""
    has_real_livekit: bool = True
    has_real_gemini: bool = True

    @property
    def secrets(self) -> frozenset[str]:
        """The values that may not be printed."""
        masters = {name for name in self.variables if name.startswith("WEBHOOK_MASTER_") and not name.endswith("_ID")}
        return frozenset(self.variables[name] for name in {*_SECRETS, *masters} if self.variables.get(name))

    def change(self, variable: str, value: str) -> str:
        """Return the command that changes a setting."""
        if self.stack is None:
            return f"export {variable}={value}"
        return f"make deploy STACK={self.stack} PARAMETERS={PARAMETERS[variable]}={value}"

    def replace(self, *names: str) -> str:
        """Return how to replace secrets."""
        command = "." if self.stack is None else f" in the environment, and run: make secrets STACK={self.stack}"
        return f"Set {' and '.join(names)}{command}"
