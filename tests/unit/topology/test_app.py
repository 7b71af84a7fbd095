"""The Faust app of a role."""

from typing import Any

import pytest

from topology.app import group_id, make_app
from topology.errors import UserError
from topology.settings import Settings


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **{"broker": "kafka:9092", **values})


def test_the_group_names_prefix_and_role() -> None:
    assert group_id("embed", settings(topic_prefix="eu.")) == "eu.cope-embed"
    assert make_app("embed", settings(topic_prefix="eu.")).conf.id == "eu.cope-embed"


def test_it_keeps_no_tables_and_serves_nothing() -> None:
    conf = make_app("embed", settings()).conf
    assert not conf.web_enabled
    assert not conf.topic_allow_declare
    assert conf.consumer_auto_offset_reset == "earliest"


def test_three_heartbeats_fit_a_session_of_any_length() -> None:
    for session_timeout_s in (6.0, 30.0, 300.0):
        conf = make_app("embed", settings(broker_session_timeout_s=session_timeout_s)).conf
        assert conf.broker_session_timeout == session_timeout_s
        assert conf.broker_heartbeat_interval * 3 == pytest.approx(session_timeout_s)
        assert conf.broker_request_timeout > session_timeout_s


def test_what_replaced_parts_of_faust_log_counts_as_a_librarys() -> None:
    app = make_app("embed", settings())
    consumer = app.consumer
    for part in (consumer, consumer._new_consumer_thread(), app.tables):
        assert part.log.logger.name == "faust"


def test_a_user_and_tls_reach_the_consumer() -> None:
    conf = make_app("embed", settings(broker_username="u", broker_tls=True)).conf
    assert conf.broker_credentials.protocol.value == "SASL_SSL"
    assert conf.broker_credentials.mechanism.value == "SCRAM-SHA-512"
    assert make_app("embed", settings(broker_tls=True)).conf.broker_credentials.protocol.value == "SSL"


def test_the_embedded_broker_must_have_been_started() -> None:
    with pytest.raises(UserError, match="COPE_BROKER"):
        make_app("embed", settings(broker="embedded"))
