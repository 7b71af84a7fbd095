"""docker-compose.yml and the image: there is no Docker here, so they are held against schema, settings and commands."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from topology.settings import ROLES, Settings
from workers.cli import cli

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


def test_image_copies_what_exists() -> None:
    for line in (ROOT / "deploy/Dockerfile").read_text().splitlines():
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
