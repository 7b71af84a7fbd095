"""`import cope` is light, and the example on its first page works."""

import doctest
import subprocess
import sys

import pytest

import cope

LIGHT = ["cope", "cope.data", "cope.config", "cope.domains", "cope.errors", "cope.keywords", "cope.render.lives"]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_name_of_the_face_is_there() -> None:
    assert all(getattr(cope, name) is not None for name in cope.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Decoder'"):
        _ = cope.Decoder


@pytest.mark.slow
def test_the_example_of_the_face_runs() -> None:
    found = doctest.testmod(cope)
    assert (found.attempted, found.failed) == (4, 0)
