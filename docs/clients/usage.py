"""The tokens of a call, for `POST /sessions/{session_id}/usage`.

Gemini reports the tokens of each of its turns, whose input is the whole conversation so far, and bills them all. So the
reports are added up, over all connections.
"""

from typing import Any

Json = dict[str, Any]

NAMES = {  # the count of a report and its details; models differ in the names for the output
    "input_tokens": [("promptTokenCount", "promptTokensDetails")],
    "output_tokens": [
        ("responseTokenCount", "responseTokensDetails"),
        ("candidatesTokenCount", "candidatesTokensDetails"),
    ],
    "tool_use_tokens": [("toolUsePromptTokenCount", "toolUsePromptTokensDetails")],
    "cached_tokens": [("cachedContentTokenCount", "cacheTokensDetails")],
}


def add_usage(totals: Json, message: Json) -> bool:
    """Add what a message of Gemini reports to the totals; return whether it reports anything."""
    report = message.get("usageMetadata") or {}
    for field, names in NAMES.items():
        for counted, detailed in names:
            if counts := _by_modality(report.get(counted), report.get(detailed) or []):
                total = totals.setdefault(field, {})
                for modality, count in counts.items():
                    total[modality] = total.get(modality, 0) + count
                break
    if (thoughts := report.get("thoughtsTokenCount")) is not None:
        totals["thinking_tokens"] = totals.get("thinking_tokens", 0) + thoughts
    return bool(report)


def _by_modality(count: int | None, details: list[Json]) -> dict[str, int]:
    """Return the tokens by modality; those of the count that no detail has are `other`."""
    counts: dict[str, int] = {}
    for detail in details:
        modality = str(detail.get("modality") or "other").lower()
        counts[modality] = counts.get(modality, 0) + detail.get("tokenCount", 0)
    if count is not None and (rest := count - sum(counts.values())) > 0:
        counts["other"] = counts.get("other", 0) + rest
    return counts
