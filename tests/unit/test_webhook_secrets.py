import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pi_voice.domain.errors import SettingsError
from pi_voice.domain.ids import EndpointId
from pi_voice.domain.webhook_endpoints import SecretVersion
from pi_voice.domain.webhook_secrets import Masters, WebhookSecrets

ENDPOINT_ID = EndpointId("019a0000-0000-7000-8000-0000000000e1")
OLD, NEW = "o" * 32, "n" * 32
FIRST = SecretVersion("a1", 1)


def webhook_secrets(current: str = "a1", **masters: str) -> WebhookSecrets:
    return WebhookSecrets(lambda: Masters(current, masters or {"a1": OLD}))


def test_a_secret_is_the_hmac_of_the_endpoint_and_the_generation() -> None:
    signed = b"pi-voice webhook 1:019a0000-0000-7000-8000-0000000000e1:1"
    mac = hmac.new(OLD.encode(), signed, hashlib.sha256).digest()

    assert webhook_secrets().reveal(ENDPOINT_ID, FIRST) == f"whsec_{base64.b64encode(mac).decode()}"


def test_a_secret_is_the_same_in_every_release() -> None:
    assert webhook_secrets().reveal(ENDPOINT_ID, FIRST) == "whsec_00cqEnoeTLaPrEVHJ2p/RreVKURW8tuSc+MSM9gcmFc="


def test_each_endpoint_generation_and_master_has_a_secret_of_its_own() -> None:
    secrets = webhook_secrets(a1=OLD, b2=NEW)
    other = EndpointId("019a0000-0000-7000-8000-0000000000e2")

    revealed = {
        secrets.reveal(endpoint_id, SecretVersion(master_id, generation))
        for endpoint_id in (ENDPOINT_ID, other)
        for master_id in ("a1", "b2")
        for generation in (1, 2, 11)
    }

    assert len(revealed) == 12


@given(st.integers(1, 2**31))
def test_a_secret_has_32_bytes_in_base64(generation: int) -> None:
    secret = webhook_secrets().reveal(ENDPOINT_ID, SecretVersion("a1", generation))

    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32


def test_new_secrets_have_the_current_master() -> None:
    assert webhook_secrets("b2", a1=OLD, b2=NEW).current(3) == SecretVersion("b2", 3)


def test_a_secret_stays_the_same_when_another_master_becomes_the_current_one() -> None:
    rotated = webhook_secrets("b2", a1=OLD, b2=NEW)

    assert rotated.reveal(ENDPOINT_ID, FIRST) == webhook_secrets().reveal(ENDPOINT_ID, FIRST)


def test_a_missing_master_is_an_error_of_the_settings_that_quotes_no_secret() -> None:
    with pytest.raises(SettingsError, match="WEBHOOK_MASTER_A1 is not set") as raised:
        webhook_secrets("b2", b2=NEW).reveal(ENDPOINT_ID, FIRST)

    assert NEW not in str(raised.value)


def test_masters_are_not_shown_by_their_repr() -> None:
    assert OLD not in repr(Masters("a1", {"a1": OLD}))
