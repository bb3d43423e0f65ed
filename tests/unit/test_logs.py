from pi_voice.logs import exception_fields


def _fail(text: str) -> None:
    raise ValueError(text)


def test_the_log_fields_of_an_exception_are_its_type_and_stack_without_its_message() -> None:
    try:
        _fail("hush-4711")
    except ValueError as error:
        fields = exception_fields(error)

    assert fields["error"] == "ValueError"
    assert [frame.rpartition(" ")[2] for frame in fields["frames"]] == [
        "test_the_log_fields_of_an_exception_are_its_type_and_stack_without_its_message",
        "_fail",
    ]
    assert all(frame.startswith("test_logs.py:") for frame in fields["frames"])
    assert "hush-4711" not in repr(fields)
