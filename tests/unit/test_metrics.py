import json

import pytest

from pi_voice.metrics import count


def test_an_event_is_one_line_of_the_embedded_metric_format(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "pi-voice-test")

    count("ExtractionsMisconfigured", cause="key")

    line = json.loads(capsys.readouterr().out)
    [series] = line["_aws"]["CloudWatchMetrics"]
    assert (series["Namespace"], line["ExtractionsMisconfigured"]) == ("PiVoice", [1.0])
    assert sorted(series["Dimensions"][0]) == ["cause", "service"]
    assert (line["cause"], line["service"]) == ("key", "pi-voice-test")
