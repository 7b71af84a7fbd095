"""TLS and SCRAM, on an Apache Kafka of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from topology import topics
from topology.admin import create_topics
from topology.errors import UserError
from topology.records import StreamAnnounced
from topology.settings import Settings
from topology.topic_log import Producer, end_offsets, read_partition

pytestmark = pytest.mark.kafka

PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=SASL_SSL://127.0.0.1:{port}
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule \
required username="cope" password="right";
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
log.dirs={folder}/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
auto.create.topics.enable=false
"""


def _certificate(folder: Path) -> None:
    subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 "
        "-keyout key.pem -out ca.pem && cat key.pem ca.pem > server.pem",
        shell=True,
        check=True,
        cwd=folder,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, free_port_pair) -> Iterator[Settings]:
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME names no Kafka distribution")
    folder = tmp_path_factory.mktemp("secure")
    _certificate(folder)
    port = free_port_pair()
    properties = folder / "server.properties"
    properties.write_text(PROPERTIES.format(port=port, controller=port + 1, folder=folder))
    tools = Path(home) / "bin"
    user = ("--add-scram", "SCRAM-SHA-512=[name=cope,password=right]")
    cluster = ("-t", "QUFBQUFBQUFBQUFBQUFBQQ", "-c", str(properties))
    subprocess.run([tools / "kafka-storage.sh", "format", *cluster, *user], check=True, capture_output=True)
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [tools / "kafka-server-start.sh", properties], stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while b"Kafka Server started" not in log.read_bytes():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Kafka does not start: {log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield Settings(
            _env_file=None,
            broker=f"127.0.0.1:{port}",
            broker_username="cope",
            broker_password=SecretStr("right"),
            broker_tls=True,
            broker_ca_file=folder / "ca.pem",
            stream_partitions=1,
            product_partitions=1,
        )
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


async def test_records_go_through_tls_and_scram(secure: Settings) -> None:
    await create_topics(secure)
    announced = StreamAnnounced(stream_id="s", url="a.mp4")
    async with Producer(secure) as producer:
        await producer.send(topics.LIVE_STREAMS, "s", announced)
    assert await end_offsets(secure, topics.LIVE_STREAMS) == {0: 1}
    held = [one.value async for one in read_partition(secure, topics.LIVE_STREAMS, 0, StreamAnnounced)]
    assert held == [announced]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"broker_password": SecretStr("wrong")}, "refuses user 'cope'.*COPE_BROKER_PASSWORD"),
        ({"broker_username": "nobody"}, "refuses user 'nobody'"),
        ({"broker_sasl_mechanism": "PLAIN"}, "does not take PLAIN|refuses user"),
        ({"broker_ca_file": None}, "certificate of the broker .* is not trusted.*COPE_BROKER_CA_FILE"),
    ],
    ids=["password", "user", "mechanism", "certificate"],
)
async def test_what_the_broker_refuses_is_one_line_at_once(secure: Settings, wrong: dict, said: str) -> None:
    with pytest.raises(UserError, match=said) as told:
        await create_topics(secure.model_copy(update=wrong))
    assert "\n" not in str(told.value)
    assert "wrong" not in str(told.value).replace("wrong address", "")
