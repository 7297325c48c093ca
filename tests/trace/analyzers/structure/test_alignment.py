"""Two trees aligned, whatever their names."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassworld.trace.analyzers.structure.alignment import (
    TreeNode,
    align_trees,
    name_similarity,
    similarity,
)


def tree(*rows):
    """Return nodes of (name, parent, calls, share); the content is the names inside."""
    inside: list[Counter[str]] = [Counter() for _ in rows]
    for i in range(len(rows) - 1, -1, -1):
        if rows[i][1] >= 0:
            inside[rows[i][1]] += inside[i] + Counter([rows[i][0]])
    return [
        TreeNode(name, parent, calls, share, inside[i])
        for i, (name, parent, calls, share) in enumerate(rows)
    ]


def pairs(before, after):
    """Return the names of the partners, None for none."""
    return {
        (
            before[match.before].name if match.before >= 0 else None,
            after[match.after].name if match.after >= 0 else None,
        )
        for match in align_trees(before, after)
    }


def test_align_trees_finds_an_inserted_level():
    before = tree(("step", -1, 9, 1.0), ("attention", 0, 9, 0.6), ("mlp", 0, 9, 0.4))
    after = tree(
        ("step", -1, 9, 1.0), ("layer", 0, 9, 1.0), ("attention", 1, 9, 0.6), ("mlp", 1, 9, 0.4)
    )
    expected = {("step", "step"), ("attention", "attention"), ("mlp", "mlp"), (None, "layer")}
    assert pairs(before, after) == expected
    assert pairs(after, before) == {(b, a) for a, b in expected}
    assert not any(match.moved for match in align_trees(before, after))


def test_align_trees_finds_renamed_nodes_at_every_level():
    before = tree(
        ("model", -1, 4, 1.0), ("block", 0, 8, 0.9), ("attn", 1, 8, 0.7), ("ff", 1, 8, 0.2)
    )
    after = tree(("net", -1, 4, 1.0), ("layer", 0, 8, 0.9), ("attn", 1, 8, 0.7), ("mlp", 1, 8, 0.2))
    assert pairs(before, after) == {
        ("model", "net"),
        ("block", "layer"),
        ("attn", "attn"),
        ("ff", "mlp"),
    }


def test_align_trees_says_what_moved_and_what_is_gone():
    before = tree(
        ("run", -1, 1, 1.0),
        ("load", 0, 1, 0.5),
        ("compute", 0, 20, 0.5),
        ("decode jpeg", 1, 300, 0.4),
        ("tiny", 2, 1, 0.001),
    )
    after = tree(
        ("run", -1, 1, 1.0),
        ("load", 0, 1, 0.1),
        ("compute", 0, 20, 0.9),
        ("decode jpeg", 2, 300, 0.4),
    )
    found = {before[m.before].name: m for m in align_trees(before, after) if m.before >= 0}
    assert found["decode jpeg"].moved
    assert found["decode jpeg"].after == 3
    assert found["decode jpeg"].confidence > 0.6
    assert found["tiny"].after == -1


def test_similarity_is_one_for_equal_nodes_and_less_for_others():
    node = TreeNode("attention", -1, 3, 0.5, Counter(mm=4))
    assert similarity(node, node) == pytest.approx(1.0)
    assert similarity(node, TreeNode("attention", -1, 3, 0.25, Counter(mm=4))) == pytest.approx(
        1 - 0.15 / 2
    )
    assert name_similarity("self_attention_block", "SelfAttention") == pytest.approx(
        0.9 * 2 * 2 / 5
    )
    assert name_similarity("a", "b") == 0


names = st.sampled_from(["a", "b", "c", "d"])


@st.composite
def random_trees(draw):
    """Return a tree in which no two nodes have one path."""
    rows: list[tuple[str, int, int, float]] = []
    paths: dict[int, tuple[str, ...]] = {}
    for _ in range(draw(st.integers(1, 12))):
        parent = draw(st.integers(-1, len(rows) - 1))
        path = (*(paths[parent] if parent >= 0 else ()), draw(names))
        if path in paths.values():
            continue
        paths[len(rows)] = path
        rows.append((path[-1], parent, draw(st.integers(1, 5)), draw(st.floats(0, 1))))
    return tree(*rows)


@settings(max_examples=60)
@given(random_trees())
def test_a_tree_aligned_with_itself_has_no_changes(nodes):
    matches = align_trees(nodes, nodes)
    assert [(m.before, m.after, m.confidence, m.moved) for m in matches] == [
        (i, i, 1.0, False) for i in range(len(nodes))
    ]


@settings(max_examples=60)
@given(random_trees(), random_trees())
def test_every_node_has_one_match_and_none_crosses_another(before, after):
    matches = align_trees(before, after)
    assert sorted(m.before for m in matches if m.before >= 0) == list(range(len(before)))
    assert sorted(m.after for m in matches if m.after >= 0) == list(range(len(after)))

    def around(nodes, i):
        while nodes[i].parent >= 0:
            i = nodes[i].parent
            yield i

    partner = {m.before: m.after for m in matches if m.before >= 0 and m.after >= 0 and not m.moved}
    for i, j in partner.items():
        outer = [partner[a] for a in around(before, i) if a in partner]
        assert outer == [b for b in around(after, j) if b in set(partner.values())]
