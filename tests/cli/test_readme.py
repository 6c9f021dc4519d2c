"""The READMEs and the changelog are true."""

import re
from pathlib import Path

import pytest

from beray import __version__
from beray.cli.exits import Exit
from beray.cli.root import COMMANDS
from beray.server.agent.models.choice import KEY_ORDER, PROVIDERS
from beray.server.settings import Settings, env_name

ROOT = Path(__file__).parents[2]
ENGLISH = (ROOT / "README.md").read_text()
CHINESE = (ROOT / "README.zh-CN.md").read_text()
BOTH = pytest.mark.parametrize("readme", [ENGLISH, CHINESE], ids=["en", "zh"])
OWN_VARIABLES = {"BERAY_BASE_URL", "BERAY_TOKEN"}


def headings(readme: str) -> list[str]:
    return re.findall(r"^(#+) ", readme, re.MULTILINE)


def blocks(readme: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)


def links(readme: str) -> set[str]:
    """The files of the repository that it links to."""
    return set(re.findall(r"\]\(([\w.-]+)\)", readme))


def table_keys(readme: str) -> list[str]:
    """What stands in code in the first columns of all tables."""
    first_cells = re.findall(r"^\| (.*?) (?<!\\)\| ", readme, re.MULTILINE)
    return [key for cell in first_cells for key in re.findall(r"`(.*?)`", cell)]


def test_both_readmes_have_the_same_parts() -> None:
    assert headings(ENGLISH) == headings(CHINESE)
    assert table_keys(ENGLISH) == table_keys(CHINESE)
    assert len(blocks(ENGLISH, "bash")) == len(blocks(CHINESE, "bash"))
    assert links(ENGLISH) - {"README.zh-CN.md"} == links(CHINESE) - {"README.md"}
    assert set(re.findall(r"BERAY_[A-Z_]+", ENGLISH)) == set(re.findall(r"BERAY_[A-Z_]+", CHINESE))


@BOTH
def test_every_linked_file_is_there(readme: str) -> None:
    assert len(links(readme)) >= 5
    assert [link for link in links(readme) if not (ROOT / link).exists()] == []


@BOTH
def test_every_setting_named_exists(readme: str) -> None:
    known = {env_name(name) for name in Settings.__dataclass_fields__} | OWN_VARIABLES | {"BERAY_LOG"}  # the SDK's own

    assert set(re.findall(r"BERAY_[A-Z_]+", readme)) <= known


@BOTH
def test_keys_of_providers_stand_in_their_order(readme: str) -> None:
    row = next(line for line in readme.splitlines() if line.startswith("| `OPENAI_API_KEY`"))

    assert re.findall(r"`([A-Z]+_API_KEY)`", row) == [PROVIDERS[name].key_names[0] for name in KEY_ORDER]


@BOTH
def test_exit_statuses_are_those_of_the_program(readme: str) -> None:
    assert re.findall(r"^\| (\d+) \|", readme, re.MULTILINE) == [str(int(exit)) for exit in Exit]


@BOTH
def test_every_command_is_named(readme: str) -> None:
    part = readme.partition("| `beray run GOAL…`")[2]

    assert [name for name in COMMANDS if not re.search(rf"`(beray )?{name}\b", "`beray run`" + part)] == []


def test_newest_version_of_the_changelog_is_ours() -> None:
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert newest is not None
    assert newest[1] == __version__


@BOTH
def test_first_program_of_the_sdk_is_short(readme: str) -> None:
    """That it runs is tested with those of the pages."""
    first, *_ = blocks(readme, "python")

    assert len(first.strip().splitlines()) <= 10
