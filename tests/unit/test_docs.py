"""README and docs name only what there is: files, links, modules, commands with their options, settings, topics."""

import importlib
import itertools
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import msgspec
import pytest

from cope.config import described
from topology import records
from topology.settings import ROLES, Settings
from topology.topics import TOPICS
from workers.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "samples/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "cope/render/backgrounds/README.md",
]
ROOMS = ("cope", "topology", "workers", "tests", "benchmarks", "docs", "samples", "deploy")
PACKAGES = ("cope", "topology", "workers", "benchmarks")
# Commands of this project whose options are click's.
MODULES = {f"cope.{name}": f"{name}_command" for name in ("train", "evaluate", "calibrate", "export", "ablations")}
MODULES |= {"cope.data.collect": "collect_command", "cope.data.writing": "writing_command"}
ENDS = re.compile(r"[|;&<>#]|\.\.\.|…")


def code_of(page: Path) -> Iterator[str]:
    """Yields what stands in backticks, and the lines of code blocks with their continuations."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose))


def names(pattern: str) -> list[tuple[str, str]]:
    """What matches anywhere in the code of the pages: (page, name), each once."""
    found = {(page, name) for page in PAGES for code in code_of(page) for name in re.findall(pattern, code)}
    return sorted((str(page.relative_to(ROOT)), name) for page, name in found)


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name}: {link}"


@pytest.mark.parametrize(("page", "path"), names(rf"(?<![\w./-])((?:{'|'.join(ROOMS)})/[\w./*-]*[\w/*])"))
def test_paths_exist(page: str, path: str) -> None:
    assert any(ROOT.glob(path.rstrip("/"))), f"{page}: {path}"


@pytest.mark.parametrize(("page", "name"), names(rf"(?<![\w./:-])((?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+)"))
def test_modules_and_their_names_exist(page: str, name: str) -> None:
    parts = name.split(".")
    known = next(at for at in range(len(parts), 0, -1) if not _missing(".".join(parts[:at])))
    thing = importlib.import_module(".".join(parts[:known]))
    for part in parts[known:]:
        thing = getattr(thing, part)


def _missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except ModuleNotFoundError:  # the part before the last is no package
        return True


@pytest.mark.parametrize(("page", "name"), names(r"\bCOPE_[A-Z][A-Z_]*[A-Z]\b"))
def test_settings_exist(page: str, name: str) -> None:
    assert name.removeprefix("COPE_").lower() in Settings.model_fields, f"{page}: {name}"


@pytest.mark.parametrize(
    ("page", "name"), names(r"^((?:live|product|page|stream|recognition|detection)_[a-z_]+)(?:\.dlq)?$")
)
def test_topics_and_fields_exist(page: str, name: str) -> None:
    structs = [one for one in vars(records).values() if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    fields = {field for one in structs for field in one.__struct_fields__}
    configured = {field for field, _ in described()} | set(Settings.model_fields)
    assert name in set(TOPICS) | fields | configured, f"{page}: {name}"


@pytest.mark.parametrize(("page", "name"), names(r"\bcope_[a-z]+(?:_[a-z]+)+\b"))
def test_metrics_exist(page: str, name: str) -> None:
    sources = itertools.chain.from_iterable((ROOT / room).rglob("*.py") for room in ("cope", "topology", "workers"))
    metric = name.removeprefix("cope_").removesuffix("_total")
    assert any(metric in source.read_text(encoding="utf-8") for source in sources), f"{page}: {name}"


@pytest.mark.parametrize(("page", "target"), names(r"^(?:.*\s)?make ([a-z]+)\b"))
def test_targets_of_make_exist(page: str, target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{page}: make {target}"


@pytest.mark.parametrize(("page", "line"), names(r"(?:^|[\s/])cope-live( .+)$"))
def test_commands_exist_with_their_options(page: str, line: str) -> None:
    command: click.Command = cli
    words = _words(line)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"{page}: no command {words[0]}"
        command = found
        words = words[1:]
    if command.name == "worker" and words and not words[0].isupper():
        assert words[0] in ROLES, f"{page}: no role {words[0]}"
    _check_options(page, command, words)


@pytest.mark.parametrize(
    ("page", "module", "line"), [(p, *n) for p, n in names(r"(?:python|torchrun\b.*) -m ([\w.]+)(.*)$")]
)
def test_modules_that_are_run_exist_with_their_options(page: str, module: str, line: str) -> None:
    if module.split(".")[0] in PACKAGES:
        assert not _missing(module), f"{page}: {module}"
    if module in MODULES:
        _check_options(page, getattr(importlib.import_module(module), MODULES[module]), _words(line))


def _words(line: str) -> list[str]:
    return shlex.split(ENDS.split(line)[0].replace("'", ""))


def _check_options(page: str, command: click.Command, words: list[str]) -> None:
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
    unknown = [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]
    assert not unknown, f"{page}: {command.name} has no {unknown}"
