"""A pickle can run any code, and models and caches come from other people: of PyTorch's files only tensors are read."""

import ast
from pathlib import Path

import cope

ROOT = Path(cope.__file__).parents[1]


def test_all_that_pytorch_loads_is_weights_only():
    calls = [
        (path.name, "weights_only=True" in ast.unparse(node))
        for package in ("cope", "topology", "workers", "benchmarks")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert len(calls) > 3
    assert [name for name, is_safe in calls if not is_safe] == []
