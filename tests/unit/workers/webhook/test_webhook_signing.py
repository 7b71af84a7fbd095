"""Requests as CloudEvents and Standard Webhooks say."""

import base64

import msgspec
import pytest

from tests.unit.workers.monitor.monitor_records import event
from topology.errors import UserError
from workers.webhook.signing import headers_of, key_of, signature


def test_the_signature_is_that_of_the_specifications_example():
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    got = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert got == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_headers_carry_the_attributes_of_the_event_in_ascii():
    one = msgspec.structs.replace(event("started"), product_id='包 "a"%')
    headers = headers_of(one, b"{}", b"key", 1)
    assert headers["ce-id"] == headers["webhook-id"] == "room-0-bag.started.12000"
    assert headers["ce-type"] == "cope.product_detected.v1"
    assert headers["ce-subject"] == "%E5%8C%85%20%22a%22%25"
    assert headers["content-type"] == "application/json"
    assert "webhook-signature" not in headers_of(one, b"{}", b"", 1)


def test_a_secret_is_any_text_or_base64_behind_its_prefix():
    assert key_of("plain") == b"plain"
    assert key_of("whsec_" + base64.b64encode(b"k").decode()) == b"k"
    with pytest.raises(UserError, match="COPE_WEBHOOK_SECRET"):
        key_of("whsec_ä")
