"""Check docs/tables.md against the template and the code, in both directions."""

import re
from dataclasses import fields
from typing import Final

from pi_voice.domain.sessions import Session, Tombstone
from pi_voice.domain.webhook_deliveries import Delivery
from pi_voice.domain.webhook_endpoints import WebhookEndpoint
from tests.support.template import ROOT, Node

PAGE: Final = (ROOT / "docs/tables.md").read_text(encoding="utf-8")
SECTIONS: Final = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
TYPED: Final = re.compile(r"`(\w+)` \((\w)\)")


def lines_of(section: str) -> list[str]:
    """Return the items of the first list of a section, each on one line."""
    [items] = re.findall(r"\A\n((?:- .*\n(?:  .*\n)*)+)", section)
    return re.sub(r"\n  ", " ", items).splitlines()


def first_column(section: str, heading: str) -> set[str]:
    """Return the names in the first column of a section's table; none if it has no such table."""
    found = re.search(rf"^\| {heading} \|.*\n((?:\|.*\n)+)", section, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in found[1].splitlines()))) if found else set()


def documented(section: str) -> dict[str, object]:
    """Return key, indexes with their projections, and TTL attribute, as the page says."""
    shape: dict[str, object] = {"ttl": None}
    for line in lines_of(section):
        keys, _, projected = line.partition("; projects ")
        if match := re.match(r"- \*\*Index\*\* `(\w+)`: ", line):
            shape[match[1]] = (TYPED.findall(keys), re.findall(r"`(\w+)`", projected) or projected)
        elif line.startswith("- **Key**: "):
            shape["key"] = TYPED.findall(keys)
        elif match := re.fullmatch(r"- \*\*TTL\*\*: `(\w+)`", line):
            shape["ttl"] = match[1]
    return shape


def defined(table: Node) -> dict[str, object]:
    """Return the same, as the template says."""
    types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}

    def keys(schema: Node) -> list[tuple[str, str]]:
        return [(each["AttributeName"], types[each["AttributeName"]]) for each in schema]

    def projected(projection: Node) -> object:
        in_words = {"ALL": "all", "KEYS_ONLY": "keys"}
        return projection.get("NonKeyAttributes") or in_words[projection["ProjectionType"]]

    return {
        "key": keys(table["KeySchema"]),
        "ttl": table.get("TimeToLiveSpecification", {}).get("AttributeName"),
        **{
            index["IndexName"]: (keys(index["KeySchema"]), projected(index["Projection"]))
            for index in table.get("GlobalSecondaryIndexes", [])
        },
    }


def test_the_page_has_each_table_of_the_template_with_its_key_indexes_and_ttl(template: Node) -> None:
    tables = {
        table["Properties"]["TableName"]["Fn::Sub"].removeprefix("${AWS::StackName}-"): defined(table["Properties"])
        for table in template["Resources"].values()
        if table["Type"] == "AWS::DynamoDB::Table"
    }

    assert {name: documented(section) for name, section in SECTIONS.items()} == tables
    assert list(SECTIONS) == list(tables)


def test_keys_projected_attributes_and_ttl_are_among_the_attributes_of_their_table() -> None:
    listing = {name: section for name, section in SECTIONS.items() if "| attribute |" in section}
    assert listing
    for name, section in listing.items():
        attributes = first_column(section, "attribute")
        named = {attribute for line in lines_of(section) for attribute, _ in TYPED.findall(line)}
        listed = {each for line in lines_of(section) for each in re.findall(r"`(\w+)`", line.partition(": ")[2])}
        assert named <= listed <= attributes, name


def test_the_page_has_each_attribute_of_a_session() -> None:
    stored = {field.name for field in fields(Session)} - {"participant"}
    stored |= {"participant_identity", "participant_name", "due_at", "due_shard", "unreadable_tries", "ttl"}
    stored |= {*Tombstone._fields}

    assert first_column(SECTIONS["voice_sessions"], "attribute") == stored


def test_the_page_has_each_attribute_of_a_webhook_endpoint() -> None:
    versions = ("secret", "previous_secret")
    stored = {field.name for field in fields(WebhookEndpoint)} - set(versions)
    stored |= {f"{name}_{part}" for name in versions for part in ("master", "generation")}

    assert first_column(SECTIONS["voice_webhook_endpoints"], "attribute") == stored


def test_the_page_has_each_attribute_of_a_delivery() -> None:
    stored = {field.name for field in fields(Delivery)} | {"due_shard", "ttl"}

    assert first_column(SECTIONS["voice_webhook_deliveries"], "attribute") == stored


def test_the_page_has_each_transition_that_the_stores_name() -> None:
    stores = (ROOT / "layers/voice/pi_voice/adapters/dynamodb").glob("*.py")
    named = {name for path in stores for name in re.findall(r"Transition: `(\w+)`", path.read_text(encoding="utf-8"))}

    assert named
    pieces = set(re.findall(r"`(\w+_pieces)`", SECTIONS["voice_transcripts"]))
    transitions = set().union(*(first_column(section, "transition") for section in SECTIONS.values()))
    assert named <= transitions | pieces


def test_the_functions_that_the_page_names_as_writers_exist() -> None:
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/app.py")}
    tables = re.findall(r"^\| transition \| by \|.*\n\|.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)

    writers = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[2] for rows in tables for row in rows.splitlines())))
    assert writers
    assert writers - folders == set()
