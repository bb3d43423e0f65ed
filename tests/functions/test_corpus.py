"""Each call of the corpus through the functions: create an agent and a session, and complete it."""

import asyncio

import aiohttp
import pytest

from tests.contracts.extraction.calls import CorpusCall, outcome_of
from tests.functions.api import Api
from tests.functions.providers import Providers

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")  # the SDK's own

CALLS = CorpusCall.all()


def plan(providers: Providers, call: CorpusCall) -> None:
    """Set the answers of the stand-in for a call."""

    async def put() -> None:
        async with aiohttp.ClientSession() as http:
            await http.put(f"{providers.gemini.base_url}/stand-in/answers", json=call.plan, raise_for_status=True)

    asyncio.run(put())


@pytest.mark.parametrize("call", CALLS, ids=[call.name for call in CALLS])
def test_a_call_of_the_corpus_has_its_documented_outcome(api: Api, providers: Providers, call: CorpusCall) -> None:
    session = api.session(api.agent(evidence=call.has_evidence, **call.schemas))
    plan(providers, call)

    completed = api.post(
        f"/sessions/{session['session_id']}/complete",
        transcript=call.turns,
        duration_seconds=call.document["duration_seconds"],
    ).json

    assert outcome_of(completed["results"], completed["extraction"]) == call.outcome
    assert api.get(f"/sessions/{session['session_id']}").data == completed


def test_the_corpus_is_wide_enough() -> None:
    features = [feature for call in CALLS for feature in call.document["features"]]
    kinds = [call.document["kind"] for call in CALLS]
    answers = [str(answer) for call in CALLS for answer in call.document["stand_in"]]

    assert len(CALLS) >= 60
    assert all(kinds.count(kind) >= 15 for kind in ("support", "intake", "booking", "survey"))
    assert all(
        features.count(feature) >= 5
        for feature in ("interruption", "correction", "refusal", "two_languages", "silence", "injection")
    )
    assert all(answers.count(answer) >= 3 for answer in ("truncated", "blocked"))
