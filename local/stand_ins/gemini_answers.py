"""The answers of the stand-in's extraction model: good ones by default, or as configured.

GEMINI_STAND_IN_EXTRACTION sets the behavior for all requests; `PUT /stand-in/answers` takes a list of the next
answers. An answer is a name from BEHAVIORS, {"results": ..., "fields": ...} for exactly these results (and evidence),
or {"text": "..."}.
"""

import json
import re
import secrets
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Self

from aiohttp import web

from local.errors import CannotStart
from local.http_server import check_site
from local.stand_ins.answer_parsing import parse_call
from local.stand_ins.gemini_messages import Message
from local.stand_ins.schema_filling import filled

BEHAVIOR: Final = "GEMINI_STAND_IN_EXTRACTION"
BEHAVIORS: Final = ("well", "badly", "truncated", "blocked", "invented")
MODEL_VERSION: Final = "stand-in"

_LETTERS_PER_TOKEN: Final = 4
_WITHOUT_SCHEMA: Final = "This is a stand-in: it only fills schemas."
_INVENTED_QUOTE: Final = "an invented quote that is in no turn"

Json = Any


class Answers:
    """The planned answers of the model."""

    def __init__(self, behavior: str = "well") -> None:
        self._behavior = behavior
        self._next: deque[Json] = deque()

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Read GEMINI_STAND_IN_EXTRACTION; raises CannotStart."""
        behavior = environment.get(BEHAVIOR) or "well"
        if behavior not in BEHAVIORS:
            raise CannotStart(f"{BEHAVIOR} is {behavior!r}: give one of {', '.join(BEHAVIORS)}.")
        return cls(behavior)

    def plan(self, answers: list[Json]) -> None:
        """Set the answers to the next requests, in order; raises ValueError for an invalid answer."""
        if not all(map(_is_answer, answers)):
            message = f"Give a list, each item one of {', '.join(BEHAVIORS)}, or an object with results or text."
            raise ValueError(message)
        self._next = deque(answers)

    def answer(self, prompt: str, schema: Message | None, *, is_json: bool) -> Message:
        """Answer a valid request in Google's format."""
        answer = self._next.popleft() if self._next else self._behavior
        used = {"promptTokenCount": len(prompt) // _LETTERS_PER_TOKEN}
        said = {"modelVersion": MODEL_VERSION, "responseId": secrets.token_urlsafe(16)}
        if answer == "blocked":
            used["totalTokenCount"] = used["promptTokenCount"]
            return {**said, "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": used}
        text = _text(answer, prompt, schema) if schema is not None else ("{}" if is_json else _WITHOUT_SCHEMA)
        reason = "STOP"
        if answer == "truncated":
            text, reason = text[: len(text) // 2], "MAX_TOKENS"
        used["candidatesTokenCount"] = len(text) // _LETTERS_PER_TOKEN
        used["totalTokenCount"] = sum(used.values())
        content = {"parts": [{"text": text}], "role": "model"}
        return {
            **said,
            "candidates": [{"content": content, "finishReason": reason, "index": 0}],
            "usageMetadata": used,
        }


def add_plan(app: web.Application, answers: Answers) -> None:
    """Add the route by which tests plan answers."""

    async def plan(request: web.Request) -> web.Response:
        check_site(request)
        try:
            planned = json.loads(await request.read())
            answers.plan(planned if isinstance(planned, list) else [None])
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.Response(status=204)

    app.router.add_put("/stand-in/answers", plan)


def _is_answer(answer: Json) -> bool:
    return answer in BEHAVIORS if isinstance(answer, str) else isinstance(answer, dict) and bool(answer)


def _text(answer: Json, prompt: str, schema: Message) -> str:
    if isinstance(answer, dict) and "text" in answer:
        return str(answer["text"])
    wants_evidence = schema.get("properties", {}).keys() == {"results", "evidence"}
    asked = {**schema["properties"]["results"], "$defs": schema.get("$defs", {})} if wants_evidence else schema
    if isinstance(answer, dict):
        results = answer.get("results")
        evidence = [{"path": path, **claim} for path, claim in answer.get("fields", {}).items()]
    else:
        results = [] if answer == "badly" else filled(asked, parse_call(prompt))
        evidence = _evidence(results, prompt, _INVENTED_QUOTE if answer == "invented" else None)
    answer = {"results": results, "evidence": evidence} if wants_evidence else results
    return json.dumps(answer, ensure_ascii=False)


def _evidence(results: Json, prompt: str, made_up: str | None) -> list[Json]:
    """Cite for each value the first turn of the caller that contains it literally, or a made-up quote."""
    claims = []
    for path, value in _leaves(results):
        claim: dict[str, Json] = {"path": path, "status": "not_mentioned", "turn": None, "quote": None}
        said = next((turn for turn in _turns(prompt) if str(value).casefold() in turn["text"].casefold()), None)
        if made_up:
            claim |= {"status": "found", "turn": 0, "quote": made_up}
        elif value is not None and said:
            claim |= {"status": "found", "turn": said["turn"], "quote": str(value)}
        claims.append(claim)
    return claims


def _leaves(value: Json, *path: str) -> list[tuple[str, Json]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [leaf for step, each in steps for leaf in _leaves(each, *path, re.sub(r"[.\\]", r"\\\g<0>", str(step)))]
    return inner or [(".".join(path), value)]


def _turns(prompt: str) -> list[Json]:
    turns = []
    for line in prompt.split("\n"):
        try:
            turn = json.loads(line)
        except ValueError:
            continue
        if isinstance(turn, dict) and turn.get("role") == "user":
            turns.append(turn)
    return turns
