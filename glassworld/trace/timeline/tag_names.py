"""Parse tag names into a pattern and the numbers in it; tell tags of one name apart.

The registry has the patterns of the engine's own tags; other names are parsed by their digits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from functools import cache, lru_cache

from glassworld.profiling.registry import REGISTRY

DIMENSIONS = ("block", "step", "timestep", "layer", "frame")

_FIELD = re.compile(r"\\\{(\w+)\\\}")
_SECTION = re.compile(r"(\d+(?:\.\d+)?)(\.\d+)*(?=_)")
_NUMBER_OR_HASH = re.compile(r"\b((?=\d*[a-z])[0-9a-z]{40,})\b|\d+(?:\.\d+)*")
_INDEX = r"\d{1,9}"
"""The number of a block, step, ...; a longer number is no index and would fit no table."""
_SECTION_OF_BLOCK = re.compile(rf"2\.3\.({_INDEX})_")


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return each registered pattern with the regular expression of its names."""
    return tuple(
        (pattern, re.compile(_FIELD.sub(lambda m: f"(?P<{m[1]}>{_INDEX})", re.escape(pattern))))
        for pattern in REGISTRY
    )


@lru_cache(maxsize=1 << 16)
def parse_tag_name(name: str) -> tuple[str, dict[str, int]]:
    """Return the pattern that a name is an instance of, and the index dimensions in the name.

    `2.3.0_Denoising_Step_1_t666` gives `2.3.{block}_Denoising_Step_{step}_t{timestep}` and
    block 0, step 1, timestep 666. A name the registry does not know keeps its section number
    (`2.3`) and has every other number replaced by `{n}`.
    """
    if name in REGISTRY:
        return name, {}
    for pattern, expression in _patterns():
        match = expression.fullmatch(name)
        if match:
            return pattern, {key: int(value) for key, value in match.groupdict().items()}
    section = _SECTION.match(name)
    rest = name[section.end() :] if section else name
    prefix = section.group(1) + (".{n}" if section.group(2) else "") if section else ""
    block = _SECTION_OF_BLOCK.match(name)
    pattern = prefix + _NUMBER_OR_HASH.sub(lambda m: m[1] or "{n}", rest)
    return pattern, {"block": int(block.group(1))} if block else {}


def distinguishing_tags(paths: Collection[tuple[str, ...]]) -> list[str]:
    """Return for each of the distinct paths a tag that others with the same last tag lack.

    It is the innermost tag around the last one that is not in all of them; "" where only one path
    ends in that name, or where there is no such tag.
    """
    ends = Counter(path[-1] for path in paths)
    around = Counter((path[-1], tag) for path in paths for tag in set(path))
    return [
        next((tag for tag in path[-2::-1] if around[path[-1], tag] < ends[path[-1]]), "")
        for path in paths
    ]
