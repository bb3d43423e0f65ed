"""What Gemini refuses or ignores in our requests.

The stand-in's reader checks fields, types and values by Google's definitions. The rules here cover what the definitions
do not say, such as which setup Google refuses: one sentence a rule.
"""

import json
import re
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, Final

from local.stand_ins.gemini_messages import InvalidRequest, fields, read

Json = Any

_FARTHEST_SECONDS: Final = 20 * 3600
_FEWEST_OUTPUT_TOKENS: Final = 8192
_MOST_ITEMS: Final = 960
_MOST_PHRASES: Final = 100
_LONGEST_PHRASE: Final = 100
_REFUSE_MINIMAL: Final = ("gemini-3.7-flash", "gemini-3.8-flash", "gemini-4")
_HONORED: Final = frozenset(
    {
        "$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items",
        "prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties",
        "additionalProperties", "required", "propertyOrdering",
    }
)  # fmt: skip
_PENALTIES: Final = ("presencePenalty", "frequencyPenalty", "temperature")


def token_faults(version: str, body: bytes, now: float) -> list[str]:
    """Return what Google would refuse or misread in a request for a Live token."""
    try:
        token = read("AuthToken", version, _parsed(body), at="auth_token")
    except InvalidRequest as fault:
        return [description for _, description in fault.violations]
    known = fields(version)["BidiGenerateContentSetup"]
    return [*_token_rules(token, now), *_mask_rules(token, known)]


def extraction_faults(version: str, body: bytes, model: str = "gemini-3.5-flash-lite") -> list[str]:
    """Return what Google would refuse or ignore in a request to a model that extracts by a schema."""
    try:
        request = read("GenerateContentRequest", version, _parsed(body))
    except InvalidRequest as fault:
        return [description for _, description in fault.violations]
    return [*_extraction_rules(request, model)]


def _token_rules(token: Json, now: float) -> Iterator[str]:
    if token.get("uses") != 1:
        yield "uses: has to be 1, or a leaked token opens more than one session"
    for name in ("expireTime", "newSessionExpireTime"):
        ahead = datetime.fromisoformat(token.get(name, "1970-01-01T00:00:00Z")).timestamp() - now
        if not 0 < ahead < _FARTHEST_SECONDS:
            yield f"{name}: has to be in the future, by less than 20 hours"
    setup = token.get("bidiGenerateContentSetup", {})
    yield from _setup_rules(setup)
    yield from _model_rules(setup)


def _model_rules(setup: Json) -> Iterator[str]:
    """Yield what the model of a setup refuses in it."""
    model = setup.get("model", "").removeprefix("models/")
    level = setup.get("generationConfig", {}).get("thinkingConfig", {}).get("thinkingLevel")
    functions = [each for tool in setup.get("tools", []) for each in tool.get("functionDeclarations", [])]
    if "extended-thinking" in model:
        if level not in {"LOW", "MEDIUM", "HIGH"}:
            yield f"thinkingConfig: {model} needs a level"
    elif level:
        yield f"thinkingConfig: {model} takes no level"
    if model.startswith("gemini-3.8") and setup.get("proactivity", {}).get("proactiveAudio") is False:
        yield f"proactivity: {model} refuses to switch it off"
    if model.startswith("gemini-3.1") and any("behavior" in each for each in functions):
        yield f"tools: {model} takes no behavior"


def _setup_rules(setup: Json) -> Iterator[str]:
    generation = setup.get("generationConfig", {})
    if not re.fullmatch(r"models/[a-z0-9][a-z0-9.-]*", setup.get("model", "")):
        yield "bidiGenerateContentSetup.model: has to begin with models/"
    if generation.get("responseModalities") != ["AUDIO"]:
        yield "generationConfig.responseModalities: has to be AUDIO alone"
    if "languageCode" in generation.get("speechConfig", {}):
        yield "speechConfig.languageCode: native-audio models refuse it"
    if not generation.get("speechConfig", {}).get("voiceConfig", {}).get("prebuiltVoiceConfig", {}).get("voiceName"):
        yield "speechConfig: names no voice"
    if not setup.get("systemInstruction", {}).get("parts"):
        yield "systemInstruction: is empty"
    for name in ("inputAudioTranscription", "outputAudioTranscription"):
        if name not in setup:
            yield f"{name}: without it there is no transcript to extract from"
    hints = setup.get("inputAudioTranscription", {})
    words = hints.get("customVocabulary", [])
    if len(words) > _MOST_PHRASES or max(map(len, words), default=0) > _LONGEST_PHRASE:
        yield "inputAudioTranscription.customVocabulary: has too many or too long phrases"
    if "slidingWindow" not in setup.get("contextWindowCompression", {}):
        yield "contextWindowCompression: without a sliding window an audio session ends after 15 minutes"


def _mask_rules(token: Json, known: Collection[str]) -> Iterator[str]:
    setup, mask = token.get("bidiGenerateContentSetup", {}), token.get("fieldMask", "").split(",")
    if "sessionResumption" in setup or "sessionResumption" in mask:
        yield "sessionResumption: locked, so the browser cannot resume"
    for name in ("tools", "realtimeInputConfig", "historyConfig"):
        if name not in mask:
            yield f"fieldMask: without {name}, a browser may set it"
    for path in mask:
        if "." in path:
            yield f"fieldMask: Google refuses paths into a field ({path})"
        elif path not in known:
            yield f"fieldMask: is not a field of the setup ({path})"
    for field in setup.keys() - set(mask):
        yield f"fieldMask: Google refuses a field of the setup that is not in it ({field})"


def _extraction_rules(request: Json, model: str) -> Iterator[str]:
    contents, generation = request.get("contents", []), request.get("generationConfig", {})
    schema = generation.get("responseJsonSchema")
    if [content.get("role", "user") for content in contents] not in (["user"], ["user", "model", "user"]):
        yield "contents: has to be one user turn, or user, model, user; Google refuses a last turn of the model"
    if generation.get("responseMimeType") != "application/json" or not isinstance(schema, dict):
        yield "generationConfig: does not ask for JSON of a schema"
    if "responseSchema" in generation:
        yield "generationConfig.responseSchema: is deprecated, and refuses unknown keywords"
    for name in _PENALTIES:
        if name in generation:
            yield f"generationConfig.{name}: is refused or ignored by the extraction model"
    if int(generation.get("maxOutputTokens", 0)) < _FEWEST_OUTPUT_TOKENS:
        yield "generationConfig.maxOutputTokens: thinking uses a part of them, so at least 8192"
    yield from _level_rules(generation.get("thinkingConfig", {}).get("thinkingLevel"), model)
    if request.get("store") is not False:
        yield "store: has to be false, or Google stores the transcript"
    items = list(_schema_faults("#", schema)) if isinstance(schema, dict) else []
    yield from (fault for fault, _ in items if fault)
    if sum(number for _, number in items) > _MOST_ITEMS:
        yield "responseJsonSchema: the sum of all maxItems is too large"


def _level_rules(level: str | None, model: str) -> Iterator[str]:
    if model == "gemini-3.5-flash-lite" and level != "MINIMAL":
        yield "generationConfig.thinkingConfig: should be MINIMAL, which is enough for this model"
    if model.startswith("gemini-2.") and level:
        yield "generationConfig.thinkingConfig: models before Gemini 3 refuse a level"
    if model.startswith(_REFUSE_MINIMAL) and level == "MINIMAL":
        yield "generationConfig.thinkingConfig: this model refuses MINIMAL"


def _schema_faults(pointer: str, schema: Json) -> Iterator[tuple[str, int]]:
    """Yield pairs of a fault and a maxItems: a fault for each ignored keyword, a bound for each subschema."""
    if not isinstance(schema, dict):
        return
    for keyword in schema.keys() - _HONORED:
        yield f"responseJsonSchema {pointer}: {keyword} is ignored", 0
    yield "", schema.get("maxItems", 0)
    for name in ("properties", "$defs"):
        for key, inner in schema.get(name, {}).items():
            yield from _schema_faults(f"{pointer}/{name}/{key}", inner)
    for name in ("anyOf", "oneOf", "prefixItems"):
        for number, inner in enumerate(schema.get(name, [])):
            yield from _schema_faults(f"{pointer}/{name}/{number}", inner)
    for name in ("items", "additionalProperties"):
        yield from _schema_faults(f"{pointer}/{name}", schema.get(name))


def _parsed(body: bytes) -> Json:
    def no_name_twice(pairs: list[tuple[str, Json]]) -> Json:
        assert len({name for name, _ in pairs}) == len(pairs), "a field appears twice"
        return dict(pairs)

    return json.loads(body.decode(), object_pairs_hook=no_name_twice)
