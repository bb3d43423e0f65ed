from datetime import date

import pytest

from pi_voice.domain.live_models import LIVE_MODELS, profile_of, shutdown_notice, unknown_model_notice

PREVIEW = "gemini-3.1-flash-live-preview"
SETTING = "GEMINI_LIVE_MODEL="


@pytest.mark.parametrize("model", [model.name for model in LIVE_MODELS])
def test_a_known_model_has_its_own_profile(model: str) -> None:
    assert profile_of(model).name == model
    assert unknown_model_notice(model) is None


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("gemini-3.8-live-001", "gemini-3.8-live"),
        ("gemini-3.8-flash-live", "gemini-3.8-live"),
        ("gemini-4-live", "gemini-3.8-live"),
        ("gemini-3.8-live-extended-thinking-preview-12-2026", "gemini-3.8-live-extended-thinking"),
        ("gemini-4-live-extended-thinking", "gemini-3.8-live-extended-thinking"),
        ("gemini-3.1-flash-live", PREVIEW),
        ("gemini-3.1-flash-live-preview-12-2026", PREVIEW),
        ("gemini-2.5-flash-native-audio-preview-12-2025", PREVIEW),
        ("something-else", "gemini-3.8-live"),
        ("", "gemini-3.8-live"),
    ],
)
def test_an_unknown_model_has_the_profile_of_the_nearest_and_a_warning(unknown: str, nearest: str) -> None:
    assert profile_of(unknown).name == nearest
    notice = unknown_model_notice(unknown)
    assert notice is not None
    assert f"the setup of {nearest}." in notice


@pytest.mark.parametrize("today", [date(2026, 11, 17), date(2027, 1, 1)])
def test_from_the_announced_date_on_a_warning_names_the_setting_for_the_stable_model(today: date) -> None:
    notice = shutdown_notice(PREVIEW, today, SETTING)

    assert notice is not None
    assert "2026-11-17" in notice
    assert notice.endswith("GEMINI_LIVE_MODEL=gemini-3.8-live")
    assert "\n" not in notice


@pytest.mark.parametrize(
    ("model", "today"),
    [
        (PREVIEW, date(2026, 11, 16)),
        ("gemini-3.8-live", date(2027, 1, 1)),
        ("gemini-3.1-flash-live", date(2027, 1, 1)),  # no date was announced for an unknown model
    ],
)
def test_without_a_date_that_has_passed_there_is_no_warning(model: str, today: date) -> None:
    assert shutdown_notice(model, today, SETTING) is None
