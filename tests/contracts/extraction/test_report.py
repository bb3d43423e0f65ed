"""The report on the corpus, without a key and with one; the key belongs to the stand-in."""

import asyncio

import pytest

from local.stand_ins.gemini import API_KEY, gemini_stand_in
from tests.contracts.extraction import report
from tests.contracts.extraction.calls import CorpusCall

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession")  # the SDK's own


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "GEMINI_EXTRACTION_MODEL"):
        monkeypatch.delenv(name, raising=False)


def test_on_the_stand_in_every_call_has_its_outcome_and_the_sums_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report.main() == 0

    printed = capsys.readouterr().out
    assert "68 calls on stand-in" in printed
    assert "NOT AS DOCUMENTED" not in printed
    assert "3 answers broke the schema twice, 6 were asked for again" in printed


def test_a_call_with_another_outcome_is_named_and_fails_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [call] = [call for call in CorpusCall.all() if call.name == "booking_16_piano_tuner"]
    call.document["stand_in"] = ["blocked"]
    monkeypatch.setattr(CorpusCall, "all", lambda: [call])

    assert report.main() == 1
    assert "NOT AS DOCUMENTED" in capsys.readouterr().out


def test_with_a_key_the_model_s_own_answers_are_scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = [call for call in CorpusCall.all() if call.name.startswith("booking_0")]
    monkeypatch.setattr(CorpusCall, "all", lambda: calls)

    async def run() -> int:
        async with gemini_stand_in() as gemini:
            assert gemini.base_url
            monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", gemini.base_url)
            monkeypatch.setenv("GEMINI_API_KEY", API_KEY)
            return await asyncio.to_thread(report.main)

    assert asyncio.run(run()) == 0
    printed = capsys.readouterr().out
    assert "9 calls on gemini-3.5-flash-lite" in printed
    assert "exact match" in printed
    assert "NOT AS DOCUMENTED" not in printed
