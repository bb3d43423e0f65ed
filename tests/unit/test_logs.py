from pi_voice.logs import exception_fields


def _broken(text: str) -> None:
    raise ValueError(text)


def test_an_exception_is_logged_by_its_type_and_place_and_never_by_its_message() -> None:
    try:
        _broken("hush-4711")
    except ValueError as error:
        logged = exception_fields(error)

    assert logged["error"] == "ValueError"
    assert [frame.rpartition(" ")[2] for frame in logged["frames"]] == [
        "test_an_exception_is_logged_by_its_type_and_place_and_never_by_its_message",
        "_broken",
    ]
    assert all(frame.startswith("test_logs.py:") for frame in logged["frames"])
    assert "hush-4711" not in repr(logged)
