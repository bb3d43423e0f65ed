"""Requests to Gemini, checked field by field by a strict reader of Google's definitions."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from local.stand_ins.gemini_messages import InvalidRequest, fields, read
from pi_voice.adapters.gemini_extraction import API_VERSION, GeminiExtractionModel
from pi_voice.adapters.gemini_live import GeminiLiveTokens
from pi_voice.adapters.http_client import HttpClient
from pi_voice.domain.agents import CreateAgentRequest
from pi_voice.domain.prompts import instruction_for
from pi_voice.domain.transcripts import TranscriptTurn
from pi_voice.domain.vocabulary import vocabulary_of
from pi_voice.ports import LiveTokenRequest, ModelRequest
from pi_voice.settings import ExtractionThinkingLevel, GeminiSettings
from pi_voice.use_cases.extractor import CallTranscript, ExtractionRequest, Extractor
from tests.integration.provider import Provider, Received, says
from tests.integration.samples import NOW, TURNS, an_agent
from tests.support.gemini_wire import extraction_faults, token_faults
from tests.support.patience import LONG

EXAMPLES = [
    path for path in sorted((Path(__file__).parents[2] / "examples").glob("*.json")) if "caller" not in path.name
]
TOKEN = says('{"name": "auth_tokens/abc"}')
NO_OBJECT = says('{"candidates": [{"content": {"role": "model", "parts": [{"text": "[]"}]}, "finishReason": "STOP"}]}')
GENERATED_SCHEMAS = dict(
    itertools.islice(
        json.loads((Path(__file__).parents[1] / "unit/generated_schemas.json").read_text(encoding="utf-8")).items(), 18
    )
)
LIVE_MODELS = (
    "gemini-3.1-flash-live-preview",
    "gemini-3.8-live",
    "gemini-3.8-live-extended-thinking",
    "gemini-3.8-live-extended-thinking-001",  # unknown: it gets the setup of the one before
)
MANY_CHOICES = {
    "name": "é" * 120,
    "instructions": "y",
    "voice": {"language_code": "pt-BR"},
    "output_schema": {
        "of": {"enum": [f"choice {number} " + "é" * 80 for number in range(150)]},
        "size": {"enum": ["s", "m"]},
    },
}
CLIENT = {"where": "client"}
WITH_TOOLS = {
    "name": "x",
    "instructions": "y",
    "behaviors": {"may_hang_up": True},
    "tools": [
        {"name": "plain", "description": "Do it.", "run": CLIENT},
        {"name": "silent.one", "description": "Do it.", "run": CLIENT, "speaks": "silent"},
        *(
            {"name": f"generated-{number}", "description": "Do it.", "run": CLIENT, "parameters": schema}
            for number, schema in enumerate(GENERATED_SCHEMAS.values())
        ),
    ],
}
"""An agent with tools whose parameters are what generators write."""

SCHEMAS: dict[str, dict[str, Any]] = {
    "types, sentences, nested objects and lists": {
        "output_schema": {
            "name": "Full name",
            "age": "integer",
            "orders": [{"dish": "What was ordered", "count": "number"}],
            "address": {"street": "string", "is_home": "boolean"},
        }
    },
    "every honored keyword, and bounds that are checked afterwards": {
        "output_schema_strict": {
            "type": "object",
            "$defs": {"day": {"type": "string", "enum": ["mon", "tue"]}},
            "properties": {
                "days": {"type": "array", "items": {"$ref": "#/$defs/day"}, "maxItems": 900, "minItems": 1},
                "others": {"type": "array", "items": {"type": "string"}, "maxItems": 900},
                "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "born": {"type": ["string", "null"], "format": "date"},
                "score": {"type": "number", "minimum": 0, "maximum": 10},
            },
            "required": ["days"],
            "additionalProperties": False,
        }
    },
}


def settings(url: str, api_version: str, live_model: str = LIVE_MODELS[0], **others: Any) -> GeminiSettings:
    return GeminiSettings(
        api_key="AIza-the-key-of-the-tests",
        live_model=live_model,
        extraction_model="gemini-3.5-flash-lite",
        api_version=api_version,
        base_url=url,
        **others,
    )


def agents() -> list[Any]:
    """Return the examples, and agents at the limits."""
    written = [pytest.param(json.loads(path.read_text(encoding="utf-8")), id=path.stem) for path in EXAMPLES]
    return [
        *written,
        pytest.param({"name": "x", "instructions": "y"}, id="the shortest"),
        pytest.param({"name": "x" * 100, "instructions": "é" * 20_000, "voice": {"name": "Zephyr"}}, id="the longest"),
        pytest.param(MANY_CHOICES, id="many choices"),
        pytest.param(WITH_TOOLS, id="tools and hang-up"),
    ]


@pytest.mark.parametrize("api_version", ["v1alpha", "v1beta"])
@pytest.mark.parametrize("model", LIVE_MODELS)
@pytest.mark.parametrize("agent", agents())
def test_the_token_request_matches_googles_definitions_and_its_model(
    runner: asyncio.Runner, provider: Provider, web: HttpClient, api_version: str, model: str, agent: dict[str, Any]
) -> None:
    spec, now = CreateAgentRequest.model_validate_json(json.dumps(agent)), time.time()
    saved = an_agent(**dict(spec))
    provider.answers(TOKEN)

    for ttl, hints in itertools.product((60, 3600), ("all", "language", "none")):
        with_hints = partial(settings, provider.url, api_version, model, transcription_hints=hints)
        token_request = LiveTokenRequest(
            instruction_for(saved),
            saved.voice.name,
            int(now) + ttl,
            saved.languages,
            vocabulary_of(saved),
            saved.tools,
            saved.behaviors.may_hang_up,
        )
        runner.run(GeminiLiveTokens(with_hints, web, LONG).issue(token_request))

    assert len(provider.received) == 6
    for received in provider.received:
        assert token_faults(api_version, received.body, now) == []


def roles(received: Received) -> list[str]:
    """Return the roles of the turns in a request."""
    return [turn["role"] for turn in json.loads(received.body)["contents"]]


@pytest.mark.parametrize("schema", [pytest.param(schema, id=name) for name, schema in SCHEMAS.items()])
@pytest.mark.parametrize(
    "turns", [TURNS, [TranscriptTurn(role="agent", text="Hello?")]], ids=["a talk", "the agent alone"]
)
@pytest.mark.parametrize("evidence", [False, True], ids=["plain", "with evidence"])
def test_extraction_and_repair_requests_match_googles_definitions(
    runner: asyncio.Runner,
    provider: Provider,
    web: HttpClient,
    schema: dict[str, Any],
    turns: list[TranscriptTurn],
    *,
    evidence: bool,
) -> None:
    saved = an_agent(**{"output_schema": None, "output_schema_strict": None, "evidence": evidence, **schema})
    provider.answers(NO_OBJECT)

    extractor = Extractor(
        GeminiExtractionModel("gemini-3.5-flash-lite", lambda: settings(provider.url, "v1alpha"), web)
    )
    runner.run(extractor.extract(ExtractionRequest.of(saved), CallTranscript(turns, NOW), LONG))

    assert [roles(received) for received in provider.received] == [["user"], ["user", "model", "user"]]
    for received in provider.received:
        assert received.path == f"/{API_VERSION}/models/gemini-3.5-flash-lite:generateContent"
        assert extraction_faults(API_VERSION, received.body) == []


@pytest.mark.parametrize(
    ("model", "level"),
    [
        ("gemini-3.5-flash-lite", "MINIMAL"),
        ("gemini-3.5-flash-lite-preview-09", "MINIMAL"),
        ("gemini-3.5-flash", "LOW"),
        ("gemini-3.7-flash", "LOW"),
        ("gemini-3.8-flash-lite", "LOW"),
        ("gemini-3.5-pro", "LOW"),
        ("gemini-2.5-flash-lite", None),
    ],
)
def test_the_thinking_level_of_an_extraction_is_the_lowest_that_its_model_accepts(
    runner: asyncio.Runner, provider: Provider, web: HttpClient, model: str, level: str | None
) -> None:
    provider.answers(NO_OBJECT)
    extracting = GeminiExtractionModel(model, lambda: settings(provider.url, "v1alpha"), web)

    runner.run(extracting.generate(ModelRequest("Extract.", ("A call.",), {"type": "object"}), LONG))

    [received] = provider.received
    assert extraction_faults(API_VERSION, received.body, model) == []
    assert sent_level(received) == level


@pytest.mark.parametrize(("setting", "level"), [("none", None), ("minimal", "MINIMAL"), ("high", "HIGH")])
def test_a_setting_overrides_the_thinking_level_of_an_extraction(
    runner: asyncio.Runner, provider: Provider, web: HttpClient, setting: ExtractionThinkingLevel, level: str | None
) -> None:
    provider.answers(NO_OBJECT)
    known = settings(provider.url, "v1alpha", extraction_thinking_level=setting)

    extracting = GeminiExtractionModel("gemini-3.7-flash", lambda: known, web)
    runner.run(extracting.generate(ModelRequest("Extract.", ("A call.",), {"type": "object"}), LONG))

    assert sent_level(provider.received[0]) == level


def sent_level(received: Received) -> str | None:
    request = read("GenerateContentRequest", API_VERSION, json.loads(received.body))
    level: str | None = request["generationConfig"].get("thinkingConfig", {}).get("thinkingLevel")
    return level


# ---- The reader and the rules themselves ----


@pytest.mark.parametrize("api_version", ["v1alpha", "v1beta"])
def test_the_reader_knows_every_message_and_type_of_the_definitions(api_version: str) -> None:
    def known(message: str, field: str, value: object) -> bool:
        try:
            read(message, api_version, {field: value})
        except InvalidRequest:
            return True  # a type that takes no such value
        except KeyError:
            return False
        return True

    unknown = [
        f"{message}.{field}"
        for message, names in fields(api_version).items()
        for field in names
        if not (known(message, field, {"a": {}}) and known(message, field, [{}]))
    ]
    assert unknown == []


Change = Callable[[dict[str, Any]], object]


def a_token_request(provider: Provider, web: HttpClient, runner: asyncio.Runner) -> dict[str, Any]:
    provider.answers(TOKEN)
    token_request = LiveTokenRequest("Be kind.", "Kore", int(time.time()) + 600)
    runner.run(GeminiLiveTokens(lambda: settings(provider.url, "v1alpha"), web, LONG).issue(token_request))
    request: dict[str, Any] = json.loads(provider.received[-1].body)
    return request


def setup_of(request: dict[str, Any]) -> dict[str, Any]:
    setup: dict[str, Any] = request["bidiGenerateContentSetup"]
    return setup


def think(request: dict[str, Any], model: str, level: str) -> None:
    setup_of(request)["model"] = f"models/{model}"
    setup_of(request)["generationConfig"]["thinkingConfig"] = {"thinkingLevel": level}


TOKEN_FAULTS: list[tuple[str, Change, str]] = [
    ("an unknown field", lambda r: r.update(ttl=5), "Unknown name \"ttl\" at 'auth_token'"),
    ("an unknown field inside", lambda r: setup_of(r)["generationConfig"].update(voice="Kore"), 'Unknown name "voice"'),
    ("a wrong type", lambda r: r.update(uses="one"), "Invalid value at 'auth_token.uses'"),
    (
        "a time without offset",
        lambda r: r.update(expireTime="2026-11-22T10:00:00"),
        "Invalid value at 'auth_token.expire_time'",
    ),
    ("a time too far ahead", lambda r: r.update(expireTime="2036-11-22T10:00:00Z"), "20 hours"),
    ("an unknown modality", lambda r: setup_of(r)["generationConfig"].update(responseModalities=["SOUND"]), "SOUND"),
    ("text instead of audio", lambda r: setup_of(r)["generationConfig"].update(responseModalities=["TEXT"]), "AUDIO"),
    ("a bare model", lambda r: setup_of(r).update(model="gemini-live"), "models/"),
    ("no transcription", lambda r: setup_of(r).pop("inputAudioTranscription"), "extract from"),
    ("an unknown path in the mask", lambda r: r.update(fieldMask=r["fieldMask"] + ",voice"), "not a field"),
    ("a path in the mask", lambda r: r.update(fieldMask=r["fieldMask"] + ",systemInstruction.parts"), "paths into"),
    ("a field outside the mask", lambda r: r.update(fieldMask="model,tools"), "not in it"),
    ("a locked handle", lambda r: r.update(fieldMask=r["fieldMask"] + ",sessionResumption"), "cannot resume"),
    ("many uses", lambda r: r.update(uses=2), "uses"),
    ("a mask without tools", lambda r: r.update(fieldMask=r["fieldMask"].replace("tools,", "")), "without tools"),
    (
        "a mask without realtimeInputConfig",
        lambda r: r.update(fieldMask=r["fieldMask"].replace(",realtimeInputConfig", "")),
        "without realtimeInputConfig",
    ),
    (
        "the languages of the other version",
        lambda r: setup_of(r).update(inputAudioTranscription={"languageCodes": ["de"]}),
        'Unknown name "languageCodes"',
    ),
    (
        "a thinking level where the model takes none",
        lambda r: think(r, "gemini-3.8-live", "LOW"),
        "gemini-3.8-live takes no level",
    ),
    (
        "no thinking level where the model needs one",
        lambda r: setup_of(r).update(model="models/gemini-3.8-live-extended-thinking"),
        "needs a level",
    ),
    (
        "a thinking level that is too low",
        lambda r: think(r, "gemini-3.8-live-extended-thinking", "MINIMAL"),
        "needs a level",
    ),
    (
        "proactive audio switched off",
        lambda r: setup_of(r).update(model="models/gemini-3.8-live", proactivity={"proactiveAudio": False}),
        "refuses to switch it off",
    ),
    (
        "a behavior of functions where the model takes none",
        lambda r: setup_of(r).update(tools=[{"functionDeclarations": [{"name": "f", "behavior": "BLOCKING"}]}]),
        "takes no behavior",
    ),
]


@pytest.mark.parametrize(("change", "fault"), [pytest.param(*case[1:], id=case[0]) for case in TOKEN_FAULTS])
def test_the_strict_reader_refuses_a_token_request_with(
    runner: asyncio.Runner, provider: Provider, web: HttpClient, change: Change, fault: str
) -> None:
    request = a_token_request(provider, web, runner)
    change(request)

    faults = token_faults("v1alpha", json.dumps(request).encode(), time.time())

    assert any(fault in found for found in faults), faults


EXTRACTION: dict[str, Any] = {
    "contents": [{"role": "user", "parts": [{"text": "What was said."}]}],
    "generationConfig": {
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object", "properties": {"a": {"type": "string"}}},
        "maxOutputTokens": 8192,
        "thinkingConfig": {"thinkingLevel": "MINIMAL"},
    },
    "store": False,
}
EXTRACTION_FAULTS: list[tuple[str, Change, str]] = [
    ("an unknown field", lambda r: r.update(prompt="x"), 'Unknown name "prompt"'),
    ("a last turn of the model", lambda r: r["contents"].append({"role": "model", "parts": []}), "last turn"),
    ("a penalty", lambda r: r["generationConfig"].update(presencePenalty=0.5), "presencePenalty"),
    ("an unknown level", lambda r: r["generationConfig"].update(thinkingConfig={"thinkingLevel": "NONE"}), "NONE"),
    ("a high level", lambda r: r["generationConfig"].update(thinkingConfig={"thinkingLevel": "HIGH"}), "MINIMAL"),
    ("stored requests", lambda r: r.pop("store"), "store"),
    ("few tokens", lambda r: r["generationConfig"].update(maxOutputTokens=100), "8192"),
    (
        "a keyword that is ignored",
        lambda r: r["generationConfig"]["responseJsonSchema"]["properties"]["a"].update(pattern="^x"),
        "#/properties/a: pattern is ignored",
    ),
    (
        "lists too long",
        lambda r: r["generationConfig"]["responseJsonSchema"]["properties"].update(
            {name: {"type": "array", "maxItems": 500} for name in "bc"}
        ),
        "maxItems",
    ),
]


@pytest.mark.parametrize(("change", "fault"), [pytest.param(*case[1:], id=case[0]) for case in EXTRACTION_FAULTS])
def test_the_strict_reader_refuses_an_extraction_request_with(change: Change, fault: str) -> None:
    request = json.loads(json.dumps(EXTRACTION))
    assert extraction_faults("v1beta", json.dumps(request).encode()) == []
    change(request)

    faults = extraction_faults("v1beta", json.dumps(request).encode())

    assert any(fault in found for found in faults), faults
