"""What a report claims: by one rule, with what a verdict rests on, and never more than the data tell."""

import pytest

from eval.statistics.bootstrap import Interval
from studies.comparison.claims import Claim, claims_section, claims_table
from studies.comparison.main_table import BOTH, STATISTICS, Row, comparisons
from studies.experts.tables import specialises
from studies.report_parts.sections import Section, Table, Value
from studies.report_parts.verdicts import ABOVE, BELOW, OPEN, side

UP, DOWN, OPEN_VALUE = Value(2, 1, 3), Value(-2, -3, -1), Value(1, -1, 3)


@pytest.mark.parametrize("kind", [Value, Interval])
def test_where_a_difference_lies(kind) -> None:
    assert [side(kind(*value[:3])) for value in (UP, DOWN, OPEN_VALUE)] == [ABOVE, BELOW, OPEN]
    assert side(kind(1, 0, 2)) == side(kind(0, 0, 0)) == OPEN
    assert side(kind(1, None, None)) is None and side(None) is None


def test_all_claims_are_gathered_with_what_they_rest_on() -> None:
    claims = [Claim("a", "x minus y", [UP], 1), Claim("b", "x minus z", [OPEN_VALUE], 3), Claim("c", "", [DOWN], None)]
    judged = claims_table("one", "One", ["micro mAP, points"], claims, "9 patches")
    several = claims_table("two", "Two", ["kNN", "probe"], [Claim("d", "v minus w", [UP, None], 2)], "8 patches")
    other = Table("other", "Other", ["row", "value"], [["a", UP]], "9 patches")
    section = claims_section([Section("S", tables=[judged, other]), Section("T", tables=[several])], {"9 patches": 4})
    (table,) = section.tables
    assert [list(row) for row in table.rows] == [
        ["a", "supported; single pretraining run", UP, "x minus y", "micro mAP, points", 1],
        ["b", "not significant (95 % CI includes 0)", OPEN_VALUE, "x minus z", "micro mAP, points", 1],
        ["c", "contradicted", DOWN, "", "micro mAP, points", 1],
        ["d", "supported", UP, "v minus w", "kNN", 2],
    ]
    assert table.measured_on == "(1) 9 patches; (2) 8 patches"
    text = " ".join(section.text)
    assert (
        "2 of 4 claims are supported by these data, 1 contradicted; for the other 1 the evidence is insufficient"
        in text
    )
    assert "one in twenty" in text and "4 claims are tested at once" in text
    assert '1 of 4 verdicts rest on a "single pretraining run"' in text
    assert "too narrow" in text and "9 patches (4 blocks)" in text
    assert "too narrow" not in " ".join(claims_section([Section("T", tables=[several])]).text)
    assert claims_section([Section("S", tables=[other])]) is None


def test_every_pretrained_encoder_is_compared_with_its_own_untrained_one() -> None:
    def encoder(name: str, twin: str | None = None) -> Row:
        return Row(f"{name}, CLS", 24, {}, name, "cls", twin)

    simple = [Row(STATISTICS, 28, {}), Row(BOTH, 36, {}), Row("PCA of patches", 20, {})]
    encoders = [encoder("untrained"), encoder("untrained_given_a"), encoder("main", "untrained"),
                encoder("given_a", "untrained_given_a"), encoder("given_missing")]  # fmt: skip
    found = comparisons([*simple, *encoders])
    assert [one.second.title for one in found if one.first.encoder == "given_a"] == ["untrained_given_a, CLS", BOTH]
    ours = [one for one in found if one.first.encoder == "main"]
    assert [one.second.title for one in ours] == ["untrained, CLS", STATISTICS, BOTH, "PCA of patches"]
    assert ours[-1].compared == "main, CLS minus PCA of patches (20 features)"
    assert {one.first.encoder for one in found} == {"main", "given_a"}
    without = comparisons([simple[0], simple[2], *encoders])
    assert [one.second.title for one in without if one.first.encoder == "given_a"][1:] == [STATISTICS]


def test_a_difference_that_is_not_significant_is_not_reported_as_none() -> None:
    def words(over: Interval, within: Interval, *learned: Interval) -> str:
        return specialises({"mean_cover_minus_shuffled": list(over), "mean_cover_minus_turned": list(within)}, learned)

    up, down, open_ = (Interval(*value[:3]) for value in (UP, DOWN, OPEN_VALUE))
    text = words(up, open_, down, open_)
    assert "significantly above that with permuted covers (+2.000)" in text
    assert "not significantly different from that with rotated covers (+1.000)" in text
    assert "excess over permuted covers is significantly below that of the untrained encoder (-2.000)" in text
    assert "excess over rotated covers is not significantly different from that of the untrained encoder" in text
    assert "no more than" not in text
    assert "untrained" not in words(up, up)
