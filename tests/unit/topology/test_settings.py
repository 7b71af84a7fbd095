"""Defaults that depend on the machine."""

import os

import pytest

from topology.settings import load_settings, shared_processors

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux says which cores a process has")


@pytest.mark.parametrize(
    ("limit", "threads"), [("max 100000", 4), ("600000 100000", 3), ("150000 100000", 1), ("nothing", 4)]
)
def test_models_take_half_of_the_cores_that_a_container_may_use(monkeypatch, tmp_path, limit, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert shared_processors(tmp_path / "cpu.max") == threads
    assert shared_processors(tmp_path / "is not there") == 4


def test_the_environment_says_otherwise(monkeypatch):
    monkeypatch.setenv("COPE_THREADS", "0")
    assert load_settings().threads == 0
