"""What mkdocs adds to the pages of this folder: generated pages, and files from outside it."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docs.hooks.commands import command_page  # noqa: E402
from docs.hooks.messages import error_messages  # noqa: E402

OUTSIDE = {
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "README.md": "index.md",
    "README.zh-CN.md": "zh/index.md",
    **{
        path.relative_to(ROOT).as_posix(): f"worlds/{path.parent.name}.md"
        for path in sorted((ROOT / "glassworld" / "worlds").glob("*/CARD.md"))
    },
    **{
        path.relative_to(ROOT).as_posix(): f"files/{path.name}"
        for path in sorted((ROOT / "examples").iterdir())
        if path.is_file()
    },
    "LICENSE": "files/LICENSE.txt",
}
"""By path in the repository: where the site has a file that is not in docs/."""

ORIGIN = {site: path for path, site in OUTSIDE.items() if site != "index.md"}

LINK = re.compile(r"(!?\[)([^\[\]]*)\]\(([^()#\s:]+)((?:#[^()\s]*)?)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and the files from outside."""
    from mkdocs.structure.files import File  # not above: the tests make pages without mkdocs

    files.append(File.generated(config, "reference/cli.md", content=command_page()))
    files.append(File.generated(config, "reference/errors.md", content=error_page()))
    for path, site in OUTSIDE.items():
        if (ROOT / path).is_file() and files.get_file_from_path(site) is None:
            files.append(File.generated(config, site, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page whose links lead to the site's places instead of the repository's.

    A link to a file that the site lacks becomes the file's path.
    """
    site = page.file.src_uri
    here = ORIGIN.get(site, f"docs/{site}")

    def rewritten(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link[3]))
        if target in OUTSIDE:
            place = OUTSIDE[target]
        elif target.startswith("docs/"):
            place = target.removeprefix("docs/")
        else:
            return f"{link[2]} (`{target}`)" if (ROOT / target).exists() else link[0]
        relative = posixpath.relpath(place, posixpath.dirname(site) or ".")
        return f"{link[1]}{link[2]}]({relative}{link[4]})"

    return LINK.sub(rewritten, markdown)


def error_page() -> str:
    """Return the list of all errors by module."""
    lines = [
        "# All errors",
        "",
        "Every error that the package can report, read from its sources when the site is built.",
        "Braces stand for what the program fills in. [Troubleshooting](../troubleshooting.md) has",
        "the causes of those you are most likely to meet.",
        "",
    ]
    module = ""
    for message in error_messages():
        if message.where != module:
            module = message.where
            lines += ["", f"## {module}", ""]
        lines.append(f"- `{message.text.replace('`', '')}`")
    return "\n".join(lines) + "\n"
