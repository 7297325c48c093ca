"""Numbers and long names in the cells of tables."""

import pytest

from glassworld.trace.report.cells import end_of, number, start_of, wrapped

KERNEL = "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>(int)"


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("DiT_Head", 20, ["DiT_Head"]),
        ("DiT_Self_Attention", 12, ["DiT_Self_", "Attention"]),
        ("DiT_Head in Generator_Forward", 20, ["DiT_Head in", "Generator_Forward"]),
        ("  cache update", 20, ["  cache update"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("", 5, [""]),
    ],
)
def test_wrapped_names_break_between_their_parts(text, width, lines):
    assert wrapped(text, width) == lines


@pytest.mark.parametrize("width", [1, 7, 20, 100])
def test_wrapped_names_are_complete_and_fit_the_width(width):
    lines = wrapped(KERNEL, width)
    assert "".join(lines).replace(" ", "") == KERNEL.replace(" ", "")
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.00009, "0"), (1234.6, "1,235"), (12.34567, "12.35"), (12345, "12,345")],
)
def test_number_has_about_four_digits(value, text):
    assert number(value) == text


def test_long_texts_are_cut_at_either_end():
    assert start_of("abcdefgh", 6) == "abc..."
    assert end_of("abcdefgh", 6) == "...fgh"
    assert start_of("abcdef", 6) == end_of("abcdef", 6) == "abcdef"
