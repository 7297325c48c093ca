"""Write the index of all tags, in English and Chinese: `python -m glassworld.profiling.tag_index`.

It is generated from the registry and from where the code opens each tag, so it cannot be wrong.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from glassworld.files import replacing
from glassworld.profiling import registry, tag_index_zh

PACKAGE = Path(__file__).resolve().parents[1]
PAGE = PACKAGE.parent / "docs" / "tags.md"
CHINESE_PAGE = PACKAGE.parent / "docs" / "zh" / "tags.md"

TAGGED_SOURCES = ("generate.py", "engine/**/*.py", "models/**/*.py")
"""Where tags are opened; the trace analysis names them too, but only to find them."""

LEVELS = {
    1: "The run",
    2: "Data preparation",
    3: "The block loop",
    4: "Inside a generator forward",
    5: "Inside VAE decode",
}

HEAD = """# The tags

*[中文](zh/tags.md)*

Every tag of a run, by level. Search a trace for the names, or see them in
`glassworld trace report`. Braces stand for numbers: `2.3_Block_{block}` is `2.3_Block_0`, then
`2.3_Block_1` and so on. The last column is the file of the original Matrix-Game 2.0 program that
had the tag. Tags without a file are new in glassworld.

Your own tags appear in every analysis like these:

```python
import glassworld

with glassworld.tag("2.3.1_My_Step_t999"):
    ...
```

This page is generated. After you move a tag, run `python -m glassworld.profiling.tag_index`.
"""


def tag_index() -> str:
    """Return the page, made from the registry and the sources."""
    locations = _locations()
    lines = [HEAD]
    for level, title in LEVELS.items():
        lines += [f"## Level {level}: {title}", ""]
        lines += ["| tag | opened in | its time | in the original |", "|---|---|---|---|"]
        for entry in registry.REGISTRY.values():
            if entry.level == level:
                where = "<br>".join(f"`{location}`" for location in locations[entry.pattern])
                origin = f"`{entry.origin}`" if entry.origin else ""
                lines.append(f"| `{entry.pattern}` | {where} | {entry.covers} | {origin} |")
        lines.append("")
    return "\n".join(lines)


def chinese_tag_index() -> str:
    """Return the page in Chinese, made from the registry and its translations."""
    lines = [tag_index_zh.HEAD]
    for level, title in tag_index_zh.LEVELS.items():
        lines += [f"## 第 {level} 层：{title}", "", "| 标签 | 含义 | 原始程序 |", "|---|---|---|"]
        for entry in registry.REGISTRY.values():
            if entry.level == level:
                covers = tag_index_zh.COVERS.get(entry.pattern, entry.covers)
                origin = f"`{entry.origin}`" if entry.origin else ""
                lines.append(f"| `{entry.pattern}` | {covers} | {origin} |")
        lines.append("")
    return "\n".join(lines)


def _locations() -> dict[str, list[str]]:
    """Return where the sources open each pattern, as file:line."""
    locations: dict[str, list[str]] = defaultdict(list)
    for path in sorted(path for pattern in TAGGED_SOURCES for path in PACKAGE.glob(pattern)):
        for name, line in _named(path):
            pattern = getattr(registry, name)
            if pattern in registry.REGISTRY:
                locations[pattern].append(f"{path.relative_to(PACKAGE.parent)}:{line}")
    return locations


def _named(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each `tags.NAME` of a file with its line, in order."""
    uses = [
        (node.lineno, node.attr)
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "tags"
    ]
    yield from ((name, line) for line, name in sorted(uses))


if __name__ == "__main__":
    for page, text in ((PAGE, tag_index()), (CHINESE_PAGE, chinese_tag_index())):
        with replacing(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(page)
