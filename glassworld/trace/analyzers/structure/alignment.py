"""Align two trees: match the nodes of one with those of the other, whatever their names.

Nodes with equal paths match first. Then the most similar pair matches, again and again, as long as
its nodes lie under the same matched nodes. At last, what has the same name anywhere else has moved.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

NAME, CONTENT, CALLS, SHARE = 0.35, 0.35, 0.15, 0.15
"""The weights of a similarity; they add up to 1."""

A_LEVEL = 0.05
"""What a pair loses for each node without a partner between it and the matched ones around it."""

LEAST = 0.45  # similarity of nodes that match
LEAST_MOVED = 0.6  # of those with one name that lie elsewhere
NOTHING_INSIDE = 0.6  # similarity of the content of two nodes without any: they may be alike
MOST_UNMATCHED = 200  # nodes of each tree that are tried in pairs: those with the most time
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\{\w+\}")

Item = TypeVar("Item")


@dataclass(frozen=True)
class TreeNode:
    """A part of a run, with all its calls at one place of the tree.

    `parent` is the position of an earlier node, -1 at the root. `content` counts what lies inside:
    the names of the parts and of the operators called, per call of the node. `share` is the node's
    time as a share of the run's.
    """

    name: str
    parent: int
    calls: int
    share: float
    content: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class NodeMatch:
    """The positions of a node in two trees; -1 where it is not.

    `moved` is True if it lies under other nodes. `confidence` is 1 for equal paths, else the
    similarity; 0 without a partner.
    """

    before: int
    after: int
    confidence: float
    moved: bool


def align_trees(before: Sequence[TreeNode], after: Sequence[TreeNode]) -> list[NodeMatch]:
    """Return one match per node of either tree: those of `after` in order, then what it lacks."""
    alignment = _Alignment(before, after)
    alignment.match_paths()
    while alignment.match_similar():  # around new partners there may be more
        pass
    alignment.match_moved()
    return list(alignment.matches())


def similarity(a: TreeNode, b: TreeNode, partners: float = 0.0) -> float:
    """Return how alike two nodes are, from 0 to 1: by name, content, calls and share of time.

    `partners` is the share of the parts inside them that are partners; if it is larger than what
    their contents have in common, it counts instead.
    """
    content = _overlap(a.content, b.content) if a.content or b.content else NOTHING_INSIDE
    content = max(content, partners)
    return (
        NAME * name_similarity(a.name, b.name)
        + CONTENT * content
        + CALLS * _ratio(a.calls, b.calls)
        + SHARE * _ratio(a.share, b.share)
    )


def name_similarity(a: str, b: str) -> float:
    """Return the share of words that two names have in common; 1 only for equal names."""
    if a == b:
        return 1.0
    words = [Counter(word.lower() for word in _WORD.findall(name)) for name in (a, b)]
    return 0.9 * _overlap(*words)


def _overlap(a: Counter[Item], b: Counter[Item]) -> float:
    """Return the Dice coefficient of two multisets."""
    whole = a.total() + b.total()
    return 2 * (a & b).total() / whole if whole else 0.0


def _ratio(a: float, b: float) -> float:
    return min(a, b) / max(a, b) if max(a, b) > 0 else 1.0


class _Alignment:
    """The matches found so far; `partner[side][i]` is a node's in the other tree, -1 for none."""

    def __init__(self, before: Sequence[TreeNode], after: Sequence[TreeNode]) -> None:
        self.trees = (before, after)
        self.partner = ([-1] * len(before), [-1] * len(after))
        self.confidence: dict[int, float] = {}  # by the node of `before`
        self.moved: set[int] = set()
        self._above = (_ancestors(before), _ancestors(after))
        self._inside = (_descendants(self._above[0]), _descendants(self._above[1]))

    def match_paths(self) -> None:
        """Match the nodes with equal paths."""
        paths = [_paths(tree, above) for tree, above in zip(self.trees, self._above, strict=True)]
        index = {path: j for j, path in enumerate(paths[1])}
        for i, path in enumerate(paths[0]):
            if path in index:
                self._match(i, index[path], 1.0)

    def match_similar(self) -> bool:
        """Match the most similar pair that fits, until none is left; return if there was one."""
        found, pairs = False, self._pairs(LEAST)
        while pairs:
            best, chosen = 0.0, (0.0, -1, -1)
            for score, i, j in pairs:
                if score <= best:
                    break
                levels = self._levels_between(i, j)
                if levels is not None and score - A_LEVEL * levels > best:
                    best, chosen = score - A_LEVEL * levels, (score, i, j)
            score, i, j = chosen
            if i < 0:
                break
            self._match(i, j, score)
            found = True
            pairs = [pair for pair in pairs if self._free(*pair[1:])]
        return found

    def match_moved(self) -> None:
        """Match what has the same name, wherever it is."""
        for score, i, j in self._pairs(LEAST_MOVED):
            if self.trees[0][i].name == self.trees[1][j].name and self._free(i, j):
                self._match(i, j, score)
                self.moved.add(i)

    def matches(self) -> Iterator[NodeMatch]:
        """Yield the matches in the order of the second tree, then what only the first one has."""
        for j, i in enumerate(self.partner[1]):
            yield NodeMatch(i, j, self.confidence.get(i, 0.0), i in self.moved)
        for i, j in enumerate(self.partner[0]):
            if j < 0:
                yield NodeMatch(i, -1, 0.0, False)

    def _match(self, i: int, j: int, confidence: float) -> None:
        self.partner[0][i], self.partner[1][j] = j, i
        self.confidence[i] = confidence

    def _free(self, i: int, j: int) -> bool:
        return self.partner[0][i] < 0 and self.partner[1][j] < 0

    def _pairs(self, least: float) -> list[tuple[float, int, int]]:
        """Return the pairs of nodes without a partner, the most similar first."""
        sides = []
        for tree, partner in zip(self.trees, self.partner, strict=True):
            nodes = [i for i in range(len(tree)) if partner[i] < 0]
            sides.append(sorted(nodes, key=lambda i: -tree[i].share)[:MOST_UNMATCHED])
        pairs = [
            (similarity(self.trees[0][i], self.trees[1][j], self._partners(i, j)), i, j)
            for i in sides[0]
            for j in sides[1]
        ]
        return sorted((p for p in pairs if p[0] >= least), key=lambda p: (-p[0], p[1], p[2]))

    def _partners(self, i: int, j: int) -> float:
        """Return the share of the matched nodes inside two nodes that are partners."""
        inside = [
            {n for n in self._inside[side][node] if self.partner[side][n] >= 0}
            for side, node in enumerate((i, j))
        ]
        count = len(inside[0]) + len(inside[1])
        common = sum(self.partner[0][n] in inside[1] for n in inside[0])
        return 2 * common / count if count else 0.0

    def _levels_between(self, i: int, j: int) -> int | None:
        """Return how many nodes without a partner lie between two nodes and matched ones.

        None if the matched nodes around them, or inside them, are not each other's partners.
        """
        levels, nearest = 0, []
        for side, node in enumerate((i, j)):
            around = next((a for a in self._above[side][node] if self.partner[side][a] >= 0), -1)
            nearest.append(around)
            above = self._above[side][node]
            levels += above.index(around) if around >= 0 else len(above)
        if (self.partner[0][nearest[0]] if nearest[0] >= 0 else -1) != nearest[1]:
            return None
        for side, (node, other) in enumerate(((i, j), (j, i))):
            for inner in self._inside[side][node]:
                partner = self.partner[side][inner]
                if partner >= 0 and other not in self._above[1 - side][partner]:
                    return None
        return levels


def _ancestors(tree: Sequence[TreeNode]) -> list[list[int]]:
    """Return for each node those around it, the innermost first."""
    above: list[list[int]] = []
    for node in tree:
        above.append([node.parent, *above[node.parent]] if node.parent >= 0 else [])
    return above


def _descendants(above: list[list[int]]) -> list[list[int]]:
    """Return for each node those inside it."""
    inside: list[list[int]] = [[] for _ in above]
    for i, ancestors in enumerate(above):
        for ancestor in ancestors:
            inside[ancestor].append(i)
    return inside


def _paths(tree: Sequence[TreeNode], above: list[list[int]]) -> list[tuple[str, ...]]:
    return [tuple(tree[a].name for a in (i, *above[i])) for i in range(len(tree))]
