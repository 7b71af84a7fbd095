"""Settings in the words of the Kafka client."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from topology.connection import bootstrap_servers, client_options, full_name
from topology.errors import UserError
from topology.settings import Settings


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **{"broker": "kafka:9092", **values})


def test_several_servers_are_listed() -> None:
    assert bootstrap_servers(settings(broker="a:1, b:2")) == ["a:1", "b:2"]


@pytest.mark.parametrize(
    "broker", ["", "kafka", "kafka:", ":9092", "kafka:port", "http://kafka:9092", "kafka:65536", "embedded"]
)
def test_an_address_that_cannot_be_is_named_with_the_mend(broker: str) -> None:
    with pytest.raises(UserError, match="COPE_BROKER"):
        bootstrap_servers(settings(broker=broker))


def test_plain_by_default() -> None:
    assert client_options(settings())["security_protocol"] == "PLAINTEXT"


def test_a_user_name_means_sasl() -> None:
    options = client_options(settings(broker_username="u", broker_password=SecretStr("p")))
    assert options["security_protocol"] == "SASL_PLAINTEXT"
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert options["sasl_plain_password"] == "p"


def test_tls_with_and_without_a_user() -> None:
    assert client_options(settings(broker_tls=True))["security_protocol"] == "SSL"
    both = client_options(settings(broker_tls=True, broker_username="u"))
    assert both["security_protocol"] == "SASL_SSL"
    assert both["ssl_context"] is not None


def test_a_certificate_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"COPE_BROKER_CA_FILE.*ca\.pem"):
        client_options(settings(broker_tls=True, broker_ca_file=tmp_path / "ca.pem"))
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(UserError, match="COPE_BROKER_CA_FILE"):
        client_options(settings(broker_tls=True, broker_ca_file=tmp_path / "ca.pem"))


def test_names_carry_the_prefix() -> None:
    assert full_name(settings(topic_prefix="eu."), "live_frames") == "eu.live_frames"
