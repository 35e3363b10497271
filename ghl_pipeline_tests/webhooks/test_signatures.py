"""Which bodies are GHL's, and which are too old to be new."""

import base64
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA512
from hypothesis import given
from hypothesis import strategies as st

from ghl_pipeline.errors import ConfigurationError
from ghl_pipeline.settings import Settings
from ghl_pipeline.webhooks.receiving.signatures import Signatures, is_fresh
from ghl_pipeline_tests.fixtures.receiver import SenderKeys, receiver_settings

BODY = b'{"type": "ContactUpdate", "locationId": "LocationNumberOne001"}'
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def signatures(sender_keys: SenderKeys) -> Signatures:
    return Signatures.from_settings(receiver_settings(Settings(), sender_keys))


def test_either_signature_alone_is_enough(signatures: Signatures, sender_keys: SenderKeys) -> None:
    assert signatures.are_valid(BODY, [sender_keys.newer(BODY)], [])
    assert signatures.are_valid(BODY, [], [sender_keys.older(BODY)])
    assert signatures.are_valid(BODY, [f" {sender_keys.newer(BODY)} "], [])


def test_a_literal_absence_is_an_absence(signatures: Signatures, sender_keys: SenderKeys) -> None:
    assert signatures.are_valid(BODY, ["N/A"], [sender_keys.older(BODY)])
    assert signatures.are_valid(BODY, [sender_keys.newer(BODY)], ["N/A"])
    assert not signatures.are_valid(BODY, ["N/A"], ["N/A"])


def test_the_newer_signature_alone_decides_where_there_is_one(signatures: Signatures, sender_keys: SenderKeys) -> None:
    right = sender_keys.older(BODY)
    for newer in (sender_keys.newer(b"other bytes"), "", "AAAA", "not base64"):
        assert not signatures.are_valid(BODY, [newer], [right]), newer
    assert signatures.are_valid(BODY, [sender_keys.newer(BODY)], ["AAAA"])


def test_nothing_is_no_signature(signatures: Signatures) -> None:
    assert not signatures.are_valid(BODY, [], [])


def test_several_signatures_are_none(signatures: Signatures, sender_keys: SenderKeys) -> None:
    right = sender_keys.newer(BODY)
    assert not signatures.are_valid(BODY, [right, right], [])
    assert not signatures.are_valid(BODY, ["AAAA", right], [])


def test_a_signature_of_another_key_or_kind_does_not_count(signatures: Signatures, sender_keys: SenderKeys) -> None:
    stranger = base64.b64encode(Ed25519PrivateKey.generate().sign(BODY)).decode()
    assert not signatures.are_valid(BODY, [stranger], [])
    assert not signatures.are_valid(BODY, [sender_keys.older(BODY)], [])
    assert not signatures.are_valid(BODY, [], [sender_keys.newer(BODY)])
    other_hash = base64.b64encode(sender_keys.rsa.sign(BODY, PKCS1v15(), SHA512())).decode()
    assert not signatures.are_valid(BODY, [], [other_hash])


@given(value=st.text(st.characters(max_codepoint=255)), is_newer=st.booleans())
def test_no_header_makes_an_error(signatures: Signatures, value: str, is_newer: bool) -> None:
    newer, older = ([value], []) if is_newer else ([], [value])
    assert not signatures.are_valid(BODY, newer, older)


@given(at=st.integers(0, len(BODY) * 8 - 1))
def test_each_bit_of_the_body_is_signed(signatures: Signatures, sender_keys: SenderKeys, at: int) -> None:
    changed = bytearray(BODY)
    changed[at // 8] ^= 1 << (at % 8)
    assert not signatures.are_valid(bytes(changed), [sender_keys.newer(BODY)], [])
    assert not signatures.are_valid(bytes(changed), [], [sender_keys.older(BODY)])


def test_the_older_signature_stops_to_count_when_told_so(sender_keys: SenderKeys) -> None:
    settings = receiver_settings(Settings(), sender_keys).model_copy(update={"webhook_accept_rsa": False})
    signatures = Signatures.from_settings(settings)
    assert not signatures.are_valid(BODY, [], [sender_keys.older(BODY)])
    assert signatures.are_valid(BODY, [sender_keys.newer(BODY)], [])


def test_ghls_own_keys_are_there_by_default() -> None:
    signatures = Signatures.from_settings(Settings())
    assert (len(signatures.ed25519), len(signatures.rsa)) == (1, 1)
    assert signatures.rsa[0].key_size == 4096


@pytest.mark.parametrize("variable", ["GHL_WEBHOOK_ED25519_KEYS", "GHL_WEBHOOK_RSA_KEYS"])
@pytest.mark.parametrize("bad", ["nonsense", "AAAA", "{other}", ",", "{own},%%%"])
def test_a_key_that_is_none_is_named_at_the_start(variable: str, bad: str, sender_keys: SenderKeys) -> None:
    own, other = sender_keys.text(sender_keys.ed25519), sender_keys.text(sender_keys.rsa)
    if variable == "GHL_WEBHOOK_RSA_KEYS":
        own, other = other, own
    value = bad.format(own=own, other=other)
    settings = Settings.model_validate({variable: value})
    with pytest.raises(ConfigurationError, match=variable) as refused:
        Signatures.from_settings(settings)
    assert value not in str(refused.value) or value == ","


# --- age


def stamped(stamp: object) -> bytes:
    return json.dumps({"timestamp": stamp}).encode()


def fresh(body: bytes) -> bool:
    return is_fresh(body, now=NOW, tolerance_seconds=300)


@pytest.mark.parametrize("seconds", [0, 299, -299, 300, -300])
def test_times_near_now_are_fresh_however_they_are_written(seconds: int) -> None:
    at = NOW + timedelta(seconds=seconds)
    epoch = int(at.timestamp())
    for stamp in (
        at.isoformat(),
        f"{at:%Y-%m-%dT%H:%M:%S}.000Z",
        f"{at:%Y-%m-%dT%H:%M:%S}",
        epoch,
        epoch * 1000,
        str(epoch),
    ):
        assert fresh(stamped(stamp)), stamp
        assert fresh(json.dumps({"data": {"timestamp": stamp}}).encode()), stamp


@pytest.mark.parametrize("seconds", [301, -301, 86_400, -86_400])
def test_times_far_from_now_are_not(seconds: int) -> None:
    at = NOW + timedelta(seconds=seconds)
    for stamp in (at.isoformat(), int(at.timestamp()), int(at.timestamp()) * 1000):
        assert not fresh(stamped(stamp)), stamp
        assert not fresh(json.dumps({"data": {"timestamp": stamp}}).encode()), stamp


@pytest.mark.parametrize("body", [b"{}", b'{"timestamp": null}', b'{"timestamp": ""}', b'{"data": [1]}'])
def test_what_has_no_time_is_taken_as_it_is(body: bytes) -> None:
    assert fresh(body)


@pytest.mark.parametrize(
    "stamp", ["yesterday", True, {}, [], 1e308, "1e400", -1, "9" * 5000, "0001-01-01T00:00:00+23:59"]
)
def test_a_time_that_is_none_is_not_fresh(stamp: object) -> None:
    assert not fresh(stamped(stamp))


@given(body=st.binary() | (st.none() | st.integers() | st.text()).map(lambda it: json.dumps(it).encode()))
def test_what_is_no_object_is_said_to_be_unreadable(body: bytes) -> None:
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        with pytest.raises(msgspec.DecodeError):
            fresh(body)
