import pytest

from pi_voice.domain.errors import AgentVersionConflict, InvalidRequest
from pi_voice.domain.preconditions import check_if_match


@pytest.mark.parametrize(
    "header",
    [None, "*", " * ", '"3"', ' "3"\t', '"1", "3"', '"3","4"', ', "3" ,', 'W/"3", "3"', '"\x80", "3"', '"a,b", "3"'],
)
def test_the_current_version_meets_a_header_that_names_it_and_any_version_a_missing_one(header: str | None) -> None:
    check_if_match(header, 3)


@pytest.mark.parametrize("header", ['"2"', '"4"', '"30"', '"03"', '"1", "2"', 'W/"3"', '"3-gzip"', '""', '"*"'])
def test_other_tags_and_weak_ones_are_a_conflict(header: str) -> None:
    with pytest.raises(AgentVersionConflict):
        check_if_match(header, 3)


@pytest.mark.parametrize(
    "header",
    [
        *(
            "",
            " ",
            ",",
            "3",
            "'3'",
            '"3',
            '3"',
            '"3" "4"',
            '"3""3"',
            'w/"3"',
            'W/ "3"',
            "W/3",
            '*, "3"',
            '"3", *',
            "**",
        ),
        *('"3\n"', '"3";', '"\x7f"', "\u201c3\u201d", ", ," * 2_000, '"' * 8_001, '"3",' * 2_000 + "x"),
    ],
    ids=lambda header: repr(header[:20]),
)
def test_anything_else_is_malformed(header: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_if_match(header, 3)

    assert [detail.path for detail in raised.value.details] == ["If-Match"]
