"""The package's page: README.md with addresses in place of paths of the repository.

Everything else is in pyproject.toml. A page of a package index shows pictures and links only by
their whole address, and this source does not know where it will be published. So whoever publishes
says where the repository's files can be read, when building:

    VASA_FILES_URL=https://raw.githubusercontent.com/OWNER/vasa_jax/main pip wheel --no-deps .

Without that variable the page has no pictures, instead of broken ones, and links are plain text.
"""

import os
import re
from pathlib import Path

from setuptools import setup

# ![words](path) or [words](path), where path is no whole address and no place within the page.
PICTURE = re.compile(r"!\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)\n?")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")


def page(readme: str, files_url: str) -> str:
    """The long description; ``files_url`` is where the repository's files are, or ""."""
    base = files_url.rstrip("/")
    if base:
        return re.sub(r"(\[[^\]]*\])\((?!\w+:|#)([^)\s]+)\)", rf"\1({base}/\2)", readme)
    return LINK.sub(r"\1", PICTURE.sub("", readme))


if __name__ == "__main__":
    setup(
        long_description=page(
            Path("README.md").read_text(encoding="utf-8"), os.environ.get("VASA_FILES_URL", "")
        ),
        long_description_content_type="text/markdown",
    )
