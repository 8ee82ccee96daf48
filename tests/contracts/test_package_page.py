"""What a package index shows: every picture by an address that works there, or no picture."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from vasa_jax.cli.optional import EXTRAS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TARGET = re.compile(r"\]\(([^)\s]+)\)")
URL = "https://files.example/owner/vasa_jax/main"


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page


@pytest.mark.parametrize("url", [URL, URL + "/"])
def test_pictures_and_links_have_whole_addresses_of_files_that_exist(page, url) -> None:
    targets = TARGET.findall(page(README, url))
    assert len(targets) == len(TARGET.findall(README)) > 10
    ours = [target for target in targets if target.startswith(URL)]
    assert len(ours) > 10 and all("://" in target for target in targets)
    for target in ours:
        assert (ROOT / target.removeprefix(f"{URL}/")).is_file(), target
    assert page(README, url).count("![") == README.count("![") > 0


def test_without_an_address_no_picture_is_broken_and_no_word_is_lost(page) -> None:
    text = page(README, "")
    assert "![" not in text and all("://" in target for target in TARGET.findall(text))
    assert "[arXiv 2404.10667](https://arxiv.org/abs/2404.10667)" in text
    words = "programs use the protocol."
    assert words in text and words not in README


def test_the_page_is_markdown_made_by_setup_py() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "readme" in project["dynamic"] and "readme" not in project
    # A container builds the package from what it copies.
    assert re.search(
        r"^COPY .*\bsetup\.py\b.* README\.md ", (ROOT / "Dockerfile").read_text(), re.M
    )


def test_every_extra_is_told_with_what_it_gives() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(EXTRAS) == set(extras)
    assert all(extra.gives and extra.modules for extra in EXTRAS.values())
