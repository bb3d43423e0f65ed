"""The check of a URL before it is stored, with a lookup of our own in place of the system's."""

import asyncio
import socket

import pytest

from pi_voice.adapters.webhook_targets import (
    AddressRefused,
    Lookup,
    WebhookTargets,
    permitted_addresses,
    system_lookup,
)
from pi_voice.domain.errors import InvalidRequest
from pi_voice.domain.webhook_urls import UrlPolicy

PUBLIC = UrlPolicy()


def answering(*addresses: str) -> Lookup:
    """Make a lookup that finds these addresses for every host."""

    async def lookup(_: str, __: int) -> list[str]:
        return list(addresses)

    return lookup


def failing(error: Exception) -> Lookup:
    """Make a lookup that fails."""

    async def lookup(_: str, __: int) -> list[str]:
        raise error

    return lookup


async def refusal(targets: WebhookTargets, url: str = "https://hooks.example.com/") -> str:
    """Return why a URL is refused."""
    with pytest.raises(InvalidRequest) as caught:
        await targets.check(url)
    [detail] = caught.value.details
    assert detail.path == "url"
    return detail.message


def test_a_host_with_a_public_address_is_accepted() -> None:
    asyncio.run(WebhookTargets(PUBLIC, answering("8.8.8.8")).check("https://hooks.example.com/"))


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254", "::ffff:8.8.8.8", "fe80::1%2"]
)
def test_a_host_whose_addresses_are_all_private_is_refused(address: str) -> None:
    assert "not public" in asyncio.run(refusal(WebhookTargets(PUBLIC, answering(address, "192.168.0.1"))))


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "unknown"), OSError("network"), UnicodeError("label too long")]
)
def test_a_host_that_is_not_found_is_refused(error: Exception) -> None:
    assert "not found" in asyncio.run(refusal(WebhookTargets(PUBLIC, failing(error))))
    assert "not found" in asyncio.run(refusal(WebhookTargets(PUBLIC, answering())))


def test_a_lookup_that_takes_too_long_is_refused() -> None:
    assert "in time" in asyncio.run(refusal(WebhookTargets(PUBLIC, failing(TimeoutError()))))


def test_a_url_that_is_not_valid_is_refused_without_a_lookup() -> None:
    assert "https://" in asyncio.run(refusal(WebhookTargets(PUBLIC, failing(AssertionError())), "http://example.com"))


def test_a_literal_address_takes_no_lookup() -> None:
    asyncio.run(WebhookTargets(PUBLIC, failing(AssertionError())).check("https://[2606:4700:4700::1111]/"))


def test_the_lookup_gets_the_host_and_its_port() -> None:
    asked = []

    async def lookup(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["8.8.8.8"]

    targets = WebhookTargets(PUBLIC, lookup)
    asyncio.run(targets.check("https://Hooks.example.com/"))
    asyncio.run(targets.check("https://hooks.example.com:8443/"))

    assert asked == [("hooks.example.com", 443), ("hooks.example.com", 8443)]


def test_of_several_addresses_only_the_public_ones_are_used_and_a_few_of_them() -> None:
    found = ["10.0.0.1", "8.8.8.8", "8.8.8.8", *(f"9.9.9.{number}" for number in range(20))]

    used = asyncio.run(permitted_addresses("hooks.example.com", 443, PUBLIC, answering(*found)))

    assert used == ["8.8.8.8", *(f"9.9.9.{number}" for number in range(7))]


def test_the_system_finds_localhost_which_only_a_policy_for_one_machine_accepts() -> None:
    found = asyncio.run(permitted_addresses("localhost", 9000, UrlPolicy(allows_loopback=True), system_lookup))
    with pytest.raises(AddressRefused):
        asyncio.run(permitted_addresses("localhost", 9000, PUBLIC, system_lookup))

    assert set(found) <= {"127.0.0.1", "::1"}
    asyncio.run(WebhookTargets(UrlPolicy(allows_loopback=True)).check("http://localhost:9000/hook"))
