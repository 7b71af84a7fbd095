"""docker-compose.yml and the image: there is no Docker here, so they are held against schema, settings and commands."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from click.testing import CliRunner

from topology.settings import ROLES, Settings
from workers.cli.main import cli

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_compose_file_follows_the_compose_schema() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_role_is_a_service_that_runs_it(compose: dict[str, Any]) -> None:
    commands = {name: service.get("command") for name, service in compose["services"].items()}
    assert {role: ["worker", role] for role in ROLES}.items() <= commands.items()


def test_all_roles_run_from_one_image(compose: dict[str, Any]) -> None:
    services = [compose["services"][role] for role in ROLES]
    assert len({service["image"] for service in services}) == 1
    for service in services:
        assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    tools = [service for service in compose["services"].values() if "build" not in service and "profiles" in service]
    assert {tool["image"] for tool in tools} == {services[0]["image"]}


def test_kafka_runs_without_zookeeper(compose: dict[str, Any]) -> None:
    kafka = compose["services"]["kafka"]
    assert kafka["image"].startswith("apache/kafka:")
    assert set(kafka["environment"]["KAFKA_PROCESS_ROLES"].split(",")) == {"broker", "controller"}
    assert kafka["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false", "we create topics, with their retention"


def test_workers_are_pointed_at_the_broker_and_the_index_of_the_file(compose: dict[str, Any]) -> None:
    listeners = compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    addresses = {listener.partition("://")[2] for listener in listeners}
    for role in ROLES:
        environment = compose["services"][role]["environment"]
        assert environment["COPE_BROKER"] in addresses
        host = urlsplit(environment["COPE_QDRANT_URL"]).hostname
        assert compose["services"][host]["image"].startswith("qdrant/qdrant:")


def test_health_is_asked_where_workers_serve_it(compose: dict[str, Any]) -> None:
    for role in ROLES:
        service = compose["services"][role]
        assert service["environment"]["COPE_HTTP_HOST"] == "0.0.0.0"
        assert f":{service['environment']['COPE_HTTP_PORT']}/healthz" in " ".join(service["healthcheck"]["test"])


def test_roles_wait_for_the_topics_and_those_for_the_broker(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for role in ROLES:
        assert services[role]["depends_on"]["topics"]["condition"] == "service_completed_successfully"
    assert services["topics"]["command"] == ["topics", "create"]
    assert services["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"


def test_every_cope_variable_is_a_setting_and_every_value_is_accepted(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        values = {
            key.removeprefix("COPE_").lower(): value
            for key, value in (service.get("environment") or {}).items()
            if key.startswith("COPE_")
        }
        assert values.keys() <= Settings.model_fields.keys(), name
        Settings(**values)


def test_commands_of_services_exist(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        if not str(service["image"]).startswith("cope-live"):
            continue
        words = [*service.get("entrypoint", ["cope-live"])[1:], *service.get("command", [])]
        result = CliRunner().invoke(cli, [*words, "--help"])
        assert result.exit_code == 0, (words, result.output)


def test_dependencies_are_services(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service.get("depends_on", {})) <= set(compose["services"])


def test_image_runs_the_command_that_the_package_installs_as_an_ordinary_user() -> None:
    lines = (ROOT / "deploy/Dockerfile").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [entrypoint] = [json.loads(line.removeprefix("ENTRYPOINT")) for line in lines if line.startswith("ENTRYPOINT")]
    assert entrypoint[0] in project["scripts"]
    [extra] = [match.group(1) for line in lines if (match := re.search(r"'\.\[(\w+)\]'", line))]
    assert extra in project["optional-dependencies"]
    [user] = [line.split()[1] for line in lines if line.startswith("USER")]
    assert user not in ("root", "0")


def test_image_copies_what_exists() -> None:
    for line in (ROOT / "deploy/Dockerfile").read_text().splitlines():
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
