"""A strict reader of what we send to Gemini: Google's definitions and what is known beyond, without our stand-in.

The definitions (tests/wire/gemini) say which fields, types and values there are. What they do not say, such as which
setup Google refuses, stands here as one rule a sentence.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker

DEFINITIONS: Final = Path(__file__).with_name("gemini")

Json = Any

_FORMATS: Final = FormatChecker(formats=())
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_FARTHEST_SECONDS: Final = 20 * 3600
_FEWEST_OUTPUT_TOKENS: Final = 8192
_MOST_ITEMS: Final = 960
_HONOURED: Final = frozenset(
    {
        "$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items",
        "prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties",
        "additionalProperties", "required", "propertyOrdering",
    }
)  # fmt: skip
_PENALTIES: Final = ("presencePenalty", "frequencyPenalty", "temperature")


def token_faults(version: str, body: bytes, now: float) -> list[str]:
    """Return what Google would refuse, or not understand as we mean it, in a request for a Live token."""
    token = _parsed(body)
    return [*_shape_faults(version, "AuthToken", token)] or [*_token_rules(_camel(token), now)]


def extraction_faults(version: str, body: bytes) -> list[str]:
    """Return what Google would refuse, or ignore, in a request that extracts by a schema."""
    request = _parsed(body)
    return [*_shape_faults(version, "GenerateContentRequest", request)] or [*_extraction_rules(_camel(request))]


def _token_rules(token: Json, now: float) -> Iterator[str]:
    setup, mask = token.get("bidiGenerateContentSetup", {}), token.get("fieldMask", "").split(",")
    if token.get("uses") != 1:
        yield "uses: without 1, a token that got around opens more than one conversation"
    for name in ("expireTime", "newSessionExpireTime"):
        ahead = datetime.fromisoformat(token.get(name, "1970-01-01T00:00:00Z")).timestamp() - now
        if not 0 < ahead < _FARTHEST_SECONDS:
            yield f"{name}: has to lie ahead, by less than 20 hours"
    yield from _setup_rules(setup)
    yield from _mask_rules(setup, mask)


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
            yield f"{name}: without it there is nothing to extract from"
    if "slidingWindow" not in setup.get("contextWindowCompression", {}):
        yield "contextWindowCompression: without a sliding window an audio session ends after 15 minutes"


def _mask_rules(setup: Json, mask: list[str]) -> Iterator[str]:
    if "sessionResumption" in setup or "sessionResumption" in mask:
        yield "sessionResumption: locked, so the browser cannot resume"
    if "tools" not in mask:
        yield "fieldMask: without tools anybody may add some"
    for path in mask:
        if "." in path:
            yield f"fieldMask: Google refuses paths into a field ({path})"
    for field in setup.keys() - set(mask):
        yield f"fieldMask: a field of the setup that is not in it is refused ({field})"


def _extraction_rules(request: Json) -> Iterator[str]:
    contents, generation = request.get("contents", []), request.get("generationConfig", {})
    schema = generation.get("responseJsonSchema")
    if [content.get("role", "user") for content in contents] not in (["user"], ["user", "model", "user"]):
        yield "contents: has to be a question, or an answer between two; a last turn of the model is refused"
    if generation.get("responseMimeType") != "application/json" or not isinstance(schema, dict):
        yield "generationConfig: asks for no JSON of a schema"
    if "responseSchema" in generation:
        yield "generationConfig.responseSchema: is deprecated, and refuses unknown keywords"
    for name in _PENALTIES:
        if name in generation:
            yield f"generationConfig.{name}: is refused or ignored by the extraction model"
    if generation.get("maxOutputTokens", 0) < _FEWEST_OUTPUT_TOKENS:
        yield "generationConfig.maxOutputTokens: thinking eats its share, so no fewer than 8192"
    if generation.get("thinkingConfig", {}).get("thinkingLevel") != "MINIMAL":
        yield "generationConfig.thinkingConfig: has to be MINIMAL"
    items = list(_schema_faults("#", schema)) if isinstance(schema, dict) else []
    yield from (fault for fault, _ in items if fault)
    if sum(number for _, number in items) > _MOST_ITEMS:
        yield "responseJsonSchema: the sum of all maxItems is too large"


def _schema_faults(pointer: str, schema: Json) -> Iterator[tuple[str, int]]:
    """Yield a fault for each keyword that Gemini ignores, and each maxItems."""
    if not isinstance(schema, dict):
        return
    for keyword in schema.keys() - _HONOURED:
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


# ---- Google's definitions ----


def _parsed(body: bytes) -> Json:
    def no_name_twice(pairs: list[tuple[str, Json]]) -> Json:
        assert len({name for name, _ in pairs}) == len(pairs), "a field is there twice"
        return dict(pairs)

    return json.loads(body.decode(), object_pairs_hook=no_name_twice)


def _shape_faults(version: str, message: str, request: Json) -> Iterator[str]:
    for fault in _validator(version, message).iter_errors(request):
        yield f"{fault.json_path}: {fault.message}"


@cache
def _validator(version: str, message: str) -> Draft202012Validator:
    messages = json.loads((DEFINITIONS / f"{version}.json").read_text(encoding="utf-8"))
    for definition in messages.values():
        if "properties" in definition:
            definition["properties"] |= {_snake(name): field for name, field in definition["properties"].items()}
    schema = {"$ref": f"#/$defs/{message}", "$defs": messages}
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=_FORMATS)


@_FORMATS.checks("google-datetime", raises=ValueError)
def _is_timestamp(value: object) -> bool:
    """A protobuf Timestamp: without an offset from UTC it is none."""
    return (
        isinstance(value, str)
        and bool(_TIMESTAMP.fullmatch(value))
        and datetime.fromisoformat(value).astimezone(UTC) is not None
    )


@_FORMATS.checks("google-fieldmask")
def _is_field_mask(value: object) -> bool:
    return isinstance(value, str) and all(re.fullmatch(r"[a-zA-Z]+(\.[a-zA-Z]+)*", path) for path in value.split(","))


def _snake(name: str) -> str:
    return re.sub(r"(?<=.)[A-Z]", lambda found: "_" + found[0].lower(), name)


def _camel(node: Json) -> Json:
    """Spell all fields as Google documents them; it takes both spellings, and the SDK mixes them."""
    if isinstance(node, list):
        return [_camel(item) for item in node]
    if not isinstance(node, dict):
        return node
    spelled = {re.sub(r"_([a-z])", lambda found: found[1].upper(), key): value for key, value in node.items()}
    return {key: value if key == "responseJsonSchema" else _camel(value) for key, value in spelled.items()}
