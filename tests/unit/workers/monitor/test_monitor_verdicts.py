"""Verdicts: what is given here counts at once, and the order of the log decides."""

from tests.unit.workers.monitor.monitor_records import event
from topology.records import Verdict
from topology.settings import Settings
from topology.topic_log import LogRecord
from topology.topics import DETECTION_VERDICTS
from workers.monitor.answers import VerdictInput
from workers.monitor.verdicts import Verdicts


async def test_what_was_taken_back_does_not_come_back_when_the_log_is_read():
    log: list[Verdict | None] = []
    told = []

    async def write(_topic, _key, record):
        log.append(record)
        return len(log) - 1

    async def records():
        for offset, value in enumerate(log):
            yield LogRecord(value, "d-1", DETECTION_VERDICTS, 0, offset, 0)

    verdicts = Verdicts(Settings(_env_file=None), write, lambda view: told.append(view.verdict))
    detection = event("started", sighting="d-1")
    for given in ("right", "undo"):
        await verdicts.give(detection, VerdictInput(verdict=given), "")
    assert told == ["right", "undo"]
    by_another = Verdict(detection_id="d-1", verdict="wrong", stream_id="room", detected="bag")
    log.append(by_another)
    verdicts.follower = records()
    await verdicts.follow()
    assert told == ["right", "undo", "wrong"]
    assert verdicts.of("d-1").verdict == "wrong"
