"""The Gemini stand-in fills any schema from a transcript, and refuses what Google refuses."""

import asyncio
import json
from typing import Any, Final

import pytest
from google import genai
from google.genai import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import JsonValue

from local.errors import CannotStart
from local.http_server import serving
from local.stand_ins.answer_parsing import parse_call
from local.stand_ins.gemini import gemini_app
from local.stand_ins.gemini_answers import Answers
from local.stand_ins.gemini_tokens import Tokens
from local.stand_ins.schema_filling import filled
from pi_voice.domain.output_schema import compile_output_schema
from tests.local.conftest import Answer, Background, Site

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")  # the SDK's own

KEY = "some-key"
MODEL = "gemini-3.5-flash-lite"


@pytest.fixture(scope="module")
def site(background: Background) -> Site:
    return Site(background.enter(serving(gemini_app(Tokens(), KEY))))


def prompt(*turns: tuple[str, str]) -> str:
    """Return a transcript in the product's format."""
    lines = [
        json.dumps({"turn": number, "role": role, "text": text}, ensure_ascii=False)
        for number, (role, text) in enumerate(turns, start=1)
    ]
    return "\n".join(["The call began on Sunday, 2026-11-22 10:00 UTC.", "-----BEGIN-----", *lines, "-----END-----"])


BOOKING = prompt(
    ("agent", "Hello, this is the restaurant. What is your name?"),
    ("user", "Hi, my name is Ada Lovelace."),
    ("agent", "How many people will come?"),
    ("user", "Four. No wait, five of us."),
    ("agent", "Which day would you like to come, and at what time?"),
    ("user", "Next Friday at half... at 7 pm please."),
    ("agent", "Would you like to sit outside?"),
    ("user", "No, inside please."),
    ("agent", "Is it a birthday, a business dinner or something else?"),
    ("user", "A business dinner."),
    ("agent", "How can we reach you?"),
    ("user", "ada@example.com, or call +44 20 7946 0123."),
    ("agent", "Any dishes you would like to order before?"),
    ("user", "The soup, two salads and the fish."),
    ("agent", "What is your budget?"),
    ("user", "Around 1,250.50 pounds."),
    ("agent", "Thank you, goodbye."),
)


def fill(schema: dict[str, Any], text: str = BOOKING) -> Any:
    return filled(schema, parse_call(text))


def fill_one(name: str, schema: dict[str, Any] | None = None, text: str = BOOKING) -> Any:
    return fill({"type": "object", "properties": {name: schema or {"type": "string"}}}, text)[name]


# ---- Sensible values ----


@pytest.mark.parametrize(
    ("name", "schema", "value"),
    [
        ("name", {"type": "string"}, "Ada Lovelace"),
        ("caller_name", {"type": ["string", "null"]}, "Ada Lovelace"),
        ("partySize", {"type": "integer"}, 5),
        ("guests", {"type": ["integer", "null"]}, 5),
        ("x", {"type": "integer", "description": "How many people"}, 5),
        ("outside", {"type": "boolean"}, False),
        ("email", {"type": "string"}, "ada@example.com"),
        ("phone_number", {"type": "string"}, "+44 20 7946 0123"),
        ("date", {"type": "string", "format": "date"}, "2026-11-27"),
        ("time", {"type": "string", "format": "time"}, "19:00:00Z"),
        ("when", {"type": "string", "format": "date-time"}, "2026-11-27T19:00:00Z"),
        ("occasion", {"type": "string", "enum": ["birthday", "business_dinner", "other"]}, "business_dinner"),
        ("budget", {"type": "number"}, 1250.5),
        ("dishes", {"type": "array", "items": {"type": "string"}}, ["The soup", "two salads", "the fish"]),
    ],
)
def test_a_property_gets_the_answer_to_its_question(name: str, schema: dict[str, Any], value: object) -> None:
    assert fill_one(name, schema) == value


@pytest.mark.parametrize(
    ("said", "day"),
    [
        ("On 2027-02-03.", "2027-02-03"),
        ("Tomorrow.", "2026-11-23"),
        ("The day after tomorrow.", "2026-11-24"),
        ("This Sunday.", "2026-11-29"),
        ("The 3rd of March.", "2027-03-03"),
        ("December twelve.", "2026-12-12"),
        ("May 5th, 2028, I think.", "2028-05-05"),
        ("The 31st of February.", "2026-11-22"),
        ("I do not know.", "2026-11-22"),
    ],
)
def test_days_are_resolved_to_dates_after_the_call(said: str, day: str) -> None:
    text = prompt(("agent", "What day suits you?"), ("user", said))

    assert fill_one("day", {"type": "string", "format": "date"}, text) == day


@pytest.mark.parametrize(
    ("said", "clock"),
    [
        ("At seven thirty pm.", "19:30:00Z"),
        ("12 am", "00:00:00Z"),
        ("16:45", "16:45:00Z"),
        ("At eight o'clock.", "08:00:00Z"),
        ("Noon.", "12:00:00Z"),
        ("No idea.", "09:00:00Z"),
    ],
)
def test_spoken_times_are_parsed(said: str, clock: str) -> None:
    text = prompt(("agent", "What time?"), ("user", said))

    assert fill_one("time", {"type": "string", "format": "time"}, text) == clock


@pytest.mark.parametrize(
    ("said", "agreed"),
    [
        ("Yes.", True),
        ("Sure, why not.", True),
        ("No, thanks.", False),
        ("I don't.", False),
        ("It doesn\u2019t.", False),
        ("Ja, auf jeden Fall.", True),
        ("Non, merci.", False),
    ],
)
def test_the_first_yes_or_no_word_decides(said: str, agreed: object) -> None:
    text = prompt(("agent", "Do you want a newsletter?"), ("user", said))

    assert fill_one("newsletter", {"type": "boolean"}, text) is agreed


def test_properties_without_a_question_take_the_answers_in_order() -> None:
    text = prompt(("agent", "One?"), ("user", "Red."), ("agent", "Two?"), ("user", "Green."))

    assert fill({"type": "object", "properties": {"p": {}, "q": {}}}, text) == {"p": "Red", "q": "Green"}


def test_a_prompt_without_turns_counts_as_the_callers_words() -> None:
    assert fill_one("anything", None, "My name is Bob.") == "Bob"


# ---- What was not said ----


NULLABLE: Final[dict[str, dict[str, Any]]] = {
    "text": {"type": ["string", "null"]},
    "number": {"type": ["integer", "null"]},
    "truth": {"type": ["boolean", "null"]},
    "choice": {"type": ["string", "null"], "enum": ["sedan", "van", None]},
    "list": {"type": ["array", "null"], "items": {"type": "string"}},
    "numbers": {"type": ["array", "null"], "items": {"type": "integer"}},
    "date": {"type": ["string", "null"], "format": "date"},
    "time": {"type": ["string", "null"], "format": "time"},
    "alternative": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "reference": {"$ref": "#/$defs/text"},
    "object": {"type": ["object", "null"], "properties": {"color": {"type": ["string", "null"]}}},
    "of OpenAPI": {"type": "STRING", "nullable": True},
}


@pytest.mark.parametrize("schema", NULLABLE.values(), ids=NULLABLE)
@pytest.mark.parametrize("turns", [[], [("agent", "Which vehicle?"), ("user", "[2.4 s of speech]")]])
def test_without_any_words_a_nullable_property_is_null(schema: dict[str, Any], turns: list[tuple[str, str]]) -> None:
    root = {"type": "object", "properties": {"vehicle": schema}, "$defs": {"text": {"type": ["string", "null"]}}}

    assert fill(root, prompt(*turns)) == {"vehicle": None}


@pytest.mark.parametrize("schema", NULLABLE.values(), ids=NULLABLE)
def test_a_nullable_property_that_nobody_asked_for_is_null(schema: dict[str, Any]) -> None:
    root = {"type": "object", "properties": {"vehicle": schema}, "$defs": {"text": {"type": ["string", "null"]}}}

    assert fill(root) == {"vehicle": None}


@pytest.mark.parametrize(
    ("kind", "value"),
    [("text", "I will walk"), ("number", None), ("truth", None), ("choice", None), ("date", None), ("time", None)],
)
def test_a_nullable_property_is_null_if_no_part_of_the_answer_fits(kind: str, value: object) -> None:
    text = prompt(("agent", "Which vehicle do you have?"), ("user", "I will walk."))

    assert fill_one("vehicle", NULLABLE[kind], text) == value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", "A van, 2 years old, since Friday at 7 pm, yes"),
        ("number", 2),
        ("truth", True),
        ("choice", "van"),
        ("date", "2026-11-27"),
        ("time", "19:00:00Z"),
        ("reference", "A van, 2 years old, since Friday at 7 pm, yes"),
    ],
)
def test_a_nullable_property_with_an_answer_has_its_value(kind: str, value: object) -> None:
    text = prompt(("agent", "Which vehicle?"), ("user", "A van, 2 years old, since Friday at 7 pm, yes."))
    root = {"type": "object", "properties": {"vehicle": NULLABLE[kind]}, "$defs": {"text": NULLABLE["text"]}}

    assert fill(root, text) == {"vehicle": value}


def test_a_property_that_may_not_be_null_has_a_value_even_if_nothing_was_said() -> None:
    properties = {"s": {"type": "string"}, "b": {"type": "boolean"}, "n": {"type": "integer"}}

    filled_value = fill({"type": "object", "properties": properties}, prompt())
    assert filled_value == {"s": "not said", "b": True, "n": 0}


def test_a_text_that_a_function_has_answered_comes_before_the_callers_words() -> None:
    calls = [
        ("succeeded", "book_table", {"table": "T4", "seats": 4}),
        ("succeeded", "book_table", {"table": "T12", "notes": ["by the lake"]}),
        ("failed", "book_table", {"table": "T8"}),
        ("succeeded", "hang_up", {"result": "The call ends."}),
    ]
    lines = [
        json.dumps({"tool_call": number, "name": name, "arguments": {}, "status": status, "response": response})
        for number, (status, name, response) in enumerate(calls)
    ]
    text = "\n".join([prompt(("agent", "Which table?"), ("user", "The small one.")), *lines])

    assert fill_one("table", {"type": "string"}, text) == "T12"
    assert fill_one("seats", {"type": "string"}, text) == "The small one"
    assert fill_one("result", {"type": "string"}, text) == "The small one"


def test_speech_without_words_is_not_read_as_facts() -> None:
    hints: dict[str, JsonValue] = {
        "guest_name": "string",
        "party_size": "integer",
        "outside": "boolean",
        "time": "time",
    }
    text = prompt(
        ("agent", "What is your name?"),
        ("user", "[1.4 s of speech]"),
        ("agent", "How many people?"),
        ("user", "[2.4 s of speech]"),
        ("agent", "At what time, and would you like to sit outside?"),
        ("user", "[3.0 s of speech] At 7 pm."),
    )

    schema = compile_output_schema(hints, None)
    assert schema
    assert fill(schema, text) == {"guest_name": None, "party_size": None, "outside": None, "time": "19:00:00Z"}


# ---- Any schema ----


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer", "minimum": 6}, 6),
        ({"type": "integer", "maximum": 4.5}, 4),
        ({"type": "number", "minimum": 5.5, "maximum": 7}, 5.5),
        ({"type": "string", "enum": ["x", "y"]}, "x"),
        ({"type": "string", "enum": [None, "x", "y"]}, None),
        ({"type": "string", "enum": ["angry", "neutral"]}, "neutral"),
        ({"enum": [3, 5, 7]}, 5),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 5),
        ({"oneOf": [{"type": "boolean"}]}, True),
        ({"$ref": "#/$defs/a~1b"}, 5),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 4}, [4, 5, 5, 5]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 1}, [4]),
        ({"type": "array", "items": {"enum": ["few", "five", "of"]}}, ["five", "of"]),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}]}, [5, True]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"answer": 5}),
        ({"type": "object"}, {}),
        ({"properties": {"deep": {"properties": {"people": {"type": "integer"}}}}}, {"deep": {"people": 5}}),
        ({"type": "OBJECT", "properties": {"people": {"type": "INTEGER", "nullable": True}}}, {"people": 5}),
        ({"type": "null"}, None),
    ],
)
def test_every_keyword_that_google_supports_is_supported(schema: dict[str, Any], value: object) -> None:
    text = prompt(("agent", "How many people?"), ("user", "Four. No wait, five of us."))
    root = {"type": "object", "properties": {"people": schema}, "$defs": {"a/b": {"type": "integer"}}}

    filled_value = fill(root, text)["people"]

    assert filled_value == value
    assert type(filled_value) is type(value)


def test_a_recursive_schema_is_filled_to_a_limited_depth() -> None:
    node = {"type": "object", "properties": {"name": {"type": "string"}, "child": {"$ref": "#/$defs/node"}}}
    tree = fill({"$ref": "#/$defs/node", "$defs": {"node": node}})

    assert tree["child"]["child"]["name"]
    assert json.dumps(tree).count("child") < 10


@pytest.mark.parametrize("target", ["#", "#/$defs/loop", "#/nowhere"])
def test_an_unresolvable_reference_is_filled_with_a_text(target: str) -> None:
    assert isinstance(fill({"$ref": target, "$defs": {"loop": {"$ref": "#/$defs/loop"}}}), str)


SCALARS = st.sampled_from(
    [
        {"type": "string"},
        {"type": ["string", "null"]},
        {"type": "integer", "minimum": 3, "maximum": 9},
        {"type": ["number", "null"], "maximum": -2.5},
        {"type": "boolean"},
        {"type": "string", "format": "date"},
        {"type": "string", "format": "date-time"},
        {"type": "string", "format": "time"},
        {"type": "string", "enum": ["yes", "no"]},
        {"anyOf": [{"type": "null"}, {"type": "integer"}]},
        {"$ref": "#/$defs/shared"},
    ]
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(
            lambda items, least: {"type": "array", "items": items, "minItems": least, "maxItems": least + 1},
            inner,
            st.integers(0, 3),
        ),
        st.dictionaries(st.text(min_size=1, max_size=8), inner, min_size=1, max_size=4).map(
            lambda properties: {
                "type": ["object", "null"],
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=SCHEMAS, answers=st.lists(st.text(max_size=30), max_size=4))
def test_results_are_valid_and_the_same_each_time(schema: dict[str, Any], answers: list[str]) -> None:
    root = {
        "type": "object",
        "properties": {"value": schema},
        "required": ["value"],
        "$defs": {"shared": {"type": "string"}},
    }
    text = prompt(*[turn for answer in answers for turn in (("agent", "And?"), ("user", answer))])

    value = fill(root, text)

    Draft202012Validator(root, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)
    assert fill(root, text) == value


# ---- Over HTTP ----


def ask(site: Site, body: Any, version: str = "v1beta", model: str = MODEL) -> Answer:
    return site.post(f"/{version}/models/{model}:generateContent", body, ("x-goog-api-key", KEY))


def content_request(config: dict[str, Any] | None = None, text: str = BOOKING, **fields: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    config = {"responseMimeType": "application/json", "responseJsonSchema": schema} if config is None else config
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], "generationConfig": config, **fields}


@pytest.mark.parametrize("version", ["v1", "v1alpha", "v1beta"])
def test_an_answer_has_geminis_format_and_names_the_stand_in(site: Site, version: str) -> None:
    answer = ask(site, content_request(), version)

    assert answer.status == 200
    [candidate] = answer.json["candidates"]
    assert json.loads(candidate["content"]["parts"][0]["text"]) == {"name": "Ada Lovelace"}
    assert (candidate["finishReason"], answer.json["modelVersion"]) == ("STOP", "stand-in")
    usage = answer.json["usageMetadata"]
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"] > 0


def test_googles_sdk_gets_an_answer(site: Site) -> None:
    async def generate() -> types.GenerateContentResponse:
        client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=site.url, api_version="v1beta"))
        async with client.aio as gemini:
            return await gemini.models.generate_content(
                model=MODEL,
                contents=BOOKING,
                config=types.GenerateContentConfig(
                    system_instruction="Extract.",
                    response_mime_type="application/json",
                    response_json_schema={"type": "object", "properties": {"party_size": {"type": "integer"}}},
                    max_output_tokens=8192,
                    thinking_config=types.ThinkingConfig(thinking_level=types.ThinkingLevel.MINIMAL),
                ),
            )

    answer = asyncio.run(generate())

    assert json.loads(answer.text or "") == {"party_size": 5}
    assert answer.model_version == "stand-in"


def test_the_older_schema_field_works_and_refuses_unknown_keywords(site: Site) -> None:
    schema = {"type": "OBJECT", "properties": {"name": {"type": "STRING", "nullable": True}}}
    config = {"responseMimeType": "application/json", "responseSchema": schema}

    assert ask(site, content_request(config)).status == 200
    stricter = {**schema, "additionalProperties": False}
    assert refused(ask(site, content_request({**config, "responseSchema": stricter}))) == (
        'Invalid JSON payload received. Unknown name "additionalProperties" at '
        "'generation_config.response_schema': Cannot find field."
    )


def test_without_a_schema_the_answer_is_one_sentence(site: Site) -> None:
    answer = ask(site, content_request({}))

    assert "stand-in" in answer.json["candidates"][0]["content"]["parts"][0]["text"]


def refused(answer: Answer) -> str:
    error = answer.json["error"]
    assert (answer.status, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    return str(error["message"])


def nested(times: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(times):
        schema = {"properties": {"a": schema}}
    return schema


JSON_TYPE = {"responseMimeType": "application/json"}
OBJECT = {"responseJsonSchema": {"type": "object"}}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"contents": []}, "contents is not specified"),
        ({"contents": [{"parts": []}]}, "contents[0].parts: contents.parts must not be empty."),
        ({"contents": [{"role": "agent", "parts": [{"text": "a"}]}]}, "Please use a valid role: user, model."),
        (content_request(contents=[{"role": "model", "parts": [{"text": "a"}]}]), "Requests ending with a model turn"),
        (content_request(extra=1), 'Unknown name "extra": Cannot find field.'),
        (
            content_request({**JSON_TYPE, "schema": {}}),
            "Unknown name \"schema\" at 'generation_config': Cannot find field.",
        ),
        (
            content_request({"thinkingConfig": {"thinkingLevel": "LEAST"}}),
            "'generation_config.thinking_config.thinking_level'",
        ),
        (
            content_request({"maxOutputTokens": "many"}),
            "Invalid value at 'generation_config.max_output_tokens' (TYPE_INT32)",
        ),
        (content_request({"temperature": "hot"}), "Invalid value at 'generation_config.temperature' (TYPE_DOUBLE)"),
        (content_request({"presencePenalty": 1}), "Penalty is not enabled"),
        (content_request(OBJECT), "needs the response_mime_type application/json"),
        (content_request({**JSON_TYPE, **OBJECT, "responseSchema": {}}), "response_schema must be omitted"),
        (content_request({**JSON_TYPE, "responseJsonSchema": True}), "must be an object"),
        (
            content_request(
                {**JSON_TYPE, "responseJsonSchema": {"items": {"maxItems": 500}, "anyOf": [{"maxItems": 461}]}}
            ),
            "too many states for serving",
        ),
        (
            content_request({**JSON_TYPE, "responseJsonSchema": nested(101)}),
            "exceeds the maximum allowed nesting depth",
        ),
    ],
)
def test_requests_that_google_refuses_are_refused(site: Site, body: dict[str, Any], said: str) -> None:
    assert said in refused(ask(site, body))


def test_an_unknown_model_is_not_found(site: Site) -> None:
    answer = ask(site, content_request(), model="gpt-5")

    assert (answer.status, answer.json["error"]["status"]) == (404, "NOT_FOUND")
    assert answer.json["error"]["message"].startswith("models/gpt-5 is not found for API version v1beta")


# ---- Configured answers ----

WITH_EVIDENCE = {
    "type": "object",
    "properties": {
        "results": {"type": "object", "properties": {"name": {"$ref": "#/$defs/name"}, "guests": {"type": "integer"}}},
        "evidence": {"type": "array", "items": {"type": "object"}},
    },
    "$defs": {"name": {"type": "string"}},
}


def generated(answers: Answers, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Extract a booking."""
    return answers.answer(BOOKING, schema or WITH_EVIDENCE, is_json=True)


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["candidates"][0]["content"]["parts"][0]["text"])


def test_evidence_quotes_the_callers_literal_words() -> None:
    answer = json.loads(text_of(generated(Answers())))

    assert answer["results"]["name"] == "Ada Lovelace"
    assert {"path": "name", "status": "found", "turn": 2, "quote": "Ada Lovelace"} in answer["evidence"]


def test_planned_answers_are_given_in_order_and_then_good_ones() -> None:
    answers = Answers()
    answers.plan(["badly", {"text": "Sure!"}, {"results": {"name": 1}, "fields": {"name": {"status": "found"}}}])

    texts = [text_of(generated(answers)) for _ in range(4)]

    assert json.loads(texts[0])["results"] == []
    assert texts[1] == "Sure!"
    assert json.loads(texts[2]) == {"results": {"name": 1}, "evidence": [{"path": "name", "status": "found"}]}
    assert json.loads(texts[3])["results"]["name"] == "Ada Lovelace"


def test_an_answer_can_be_truncated_or_blocked_as_by_google() -> None:
    answers = Answers()
    answers.plan(["truncated", "blocked"])

    cut, blocked = generated(answers), generated(answers)

    assert cut["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert blocked["promptFeedback"]["blockReason"] == "PROHIBITED_CONTENT"
    assert "candidates" not in blocked


def test_the_environment_sets_the_behavior_of_every_answer() -> None:
    answers = Answers.of({"GEMINI_STAND_IN_EXTRACTION": "invented"})

    claims = json.loads(text_of(generated(answers)))["evidence"]

    assert claims
    assert all(claim["quote"] not in BOOKING for claim in claims)


def test_an_unknown_behavior_is_refused() -> None:
    with pytest.raises(CannotStart, match="GEMINI_STAND_IN_EXTRACTION is 'often'"):
        Answers.of({"GEMINI_STAND_IN_EXTRACTION": "often"})


@pytest.mark.parametrize("plan", [b"", b"{}", b'["often"]', b"[{}]", b"[7]"])
def test_an_invalid_plan_is_refused(site: Site, plan: bytes) -> None:
    assert site.call("PUT", "/stand-in/answers", plan).status == 400
