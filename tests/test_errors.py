"""How messages are worded."""

from pipeline.errors import join_problems, listed, plural


def test_counts_and_lists() -> None:
    found = [plural(1, "case"), plural(0, "box"), plural(3, "study"), plural(2, "day")]
    assert found == ["1 case", "0 boxes", "3 studies", "2 days"]
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_problems_are_numbered_where_there_are_several() -> None:
    assert join_problems("x", ["bad"]) == "x: bad"
    assert join_problems("x", ["bad", "worse"]) == "x has 2 problems:\n  1. bad\n  2. worse"
