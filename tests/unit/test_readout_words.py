"""Readouts, their sentences and their table."""

import json

import msgspec
import pytest

from tailorbird.measure.query import PlacementMoments, ReadoutQuery
from tailorbird.measure.readout import readouts
from tailorbird.measure.report import WIDTH_MAX, render
from tailorbird.schema.readout import Readout, Readouts
from tailorbird.stats.moments import UnitMoments, UnitTotals, add_unit

AS_OF = 1_704_164_645.5


def arm(units: int, every: int, value: float = 10.0) -> UnitMoments:
    """Return visitors of two decisions and one exposure each, of whom each `every`th buys."""
    moments = UnitMoments()
    for unit in range(units):
        is_buyer = unit % every == 0
        add_unit(moments, UnitTotals(2, 1, int(is_buyer), value * is_buyer * (1 + unit % 3), int(is_buyer)))
    return moments


def ask(
    personalized: UnitMoments, holdout: UnitMoments, share: float = 0.1, **query: str
) -> tuple[Readout, ...]:
    moments = PlacementMoments("hero", share, personalized, holdout, merged_units=2)
    return readouts(ReadoutQuery(AS_OF, (moments,), **query)).readouts


def test_a_rise_is_told_in_one_sentence() -> None:
    rate, value = ask(arm(9000, 5), arm(1000, 10))
    assert rate.lift is not None
    assert rate.lift.value == pytest.approx(1.0)
    assert rate.trials == "exposures"
    low, high = 100 * rate.lift.low, 100 * rate.lift.high
    assert rate.verdict == (
        "Personalized visitors reached the goal 100.0 % more often than the holdout "
        f"(95 % interval {low:.1f} % to {high:.1f} %)."
    )
    assert value.verdict.startswith("Personalized visitors brought ")
    assert " more value each than the holdout" in value.verdict


def test_a_fall_is_told_as_a_fall_with_its_interval_turned_round() -> None:
    rate, _ = ask(arm(9000, 10), arm(1000, 5))
    assert rate.lift is not None
    nearest, farthest = -100 * rate.lift.high, -100 * rate.lift.low
    assert rate.verdict == (
        "Personalized visitors reached the goal 50.0 % less often than the holdout "
        f"(95 % interval {nearest:.1f} % to {farthest:.1f} %)."
    )


def test_what_chance_may_have_done_is_not_claimed() -> None:
    rate, _ = ask(arm(900, 9), arm(100, 10))
    assert rate.lift is not None
    assert rate.verdict == (
        "Not enough data to tell: personalized visitors reached the goal between "
        f"{-100 * rate.lift.low:.1f} % less often and {100 * rate.lift.high:.1f} % more often "
        "than the holdout (95 % interval)."
    )


def test_a_broken_split_is_said_first() -> None:
    for readout in ask(arm(812, 5), arm(251, 10)):
        assert readout.sample_ratio.is_mismatch
        assert readout.verdict.startswith(
            "Do not trust this readout: the split is 812 to 251 where 90 to 10 was declared (p = "
        )


@pytest.mark.parametrize(
    ("personalized", "holdout", "share", "reason"),
    [
        (arm(50, 5), UnitMoments(), 0.0, "no holdout is declared"),
        (arm(9, 5), arm(1, 1), 0.1, "the holdout has 1 visitor yet"),
        (UnitMoments(), UnitMoments(), 0.1, "the personalized arm has no visitors yet"),
        (arm(90, 5), arm(10, 1, 0.0), 0.1, "all visitors of the holdout did the same"),
        (arm(90, 5), UnitMoments(units=10, decisions=20), 0.1, "the holdout has no exposures yet"),
    ],
)
def test_nothing_is_concluded_from_too_little(personalized, holdout, share, reason) -> None:
    rate = ask(personalized, holdout, share)[0]
    assert rate.lift is None
    assert rate.difference is None
    assert rate.verdict.startswith(f"Not enough data to tell: {reason}")


def test_where_no_ratio_can_be_told_the_difference_is() -> None:
    _, value = ask(arm(900, 5, 10.0), arm(100, 5, -10.0))
    assert value.lift is None
    assert value.difference is not None
    assert value.verdict.startswith(
        f"Personalized visitors brought {value.difference.value:.2f} more value each"
    )


def test_placement_and_metric_narrow_the_answer() -> None:
    hero = PlacementMoments("hero", 0.1, arm(90, 5), arm(10, 5))
    moments = (hero, msgspec.structs.replace(hero, placement="*"))
    names = [
        [(readout.placement, readout.metric) for readout in readouts(query).readouts]
        for query in (
            ReadoutQuery(AS_OF, moments),
            ReadoutQuery(AS_OF, moments, placement="*"),
            ReadoutQuery(AS_OF, moments, placement="hero", metric="value"),
            ReadoutQuery(AS_OF, moments, placement="unknown"),
        )
    ]
    assert names == [
        [("hero", "rate"), ("hero", "value"), ("*", "rate"), ("*", "value")],
        [("*", "rate"), ("*", "value")],
        [("hero", "value")],
        [],
    ]


def test_the_wire_form_is_camel_case_without_gaps() -> None:
    answer = readouts(ReadoutQuery(AS_OF, (PlacementMoments("hero", 0.1, arm(900, 5), arm(100, 9)),)))
    told = json.loads(msgspec.json.encode(answer), parse_constant=pytest.fail)
    assert told["asOf"] == "2024-01-02T03:04:05.500Z"
    rate = told["readouts"][0]
    assert list(rate) == [
        "placement",
        "metric",
        "segment",
        "holdoutShare",
        "trials",
        "arms",
        "lift",
        "difference",
        "sampleRatio",
        "verdict",
        "mergedArms",
    ]
    assert list(rate["arms"]["holdout"]) == [
        "units",
        "decisions",
        "exposures",
        "outcomes",
        "outcomesShown",
        "value",
        "rate",
        "rateInterval",
    ]
    assert list(rate["sampleRatio"]) == ["expected", "observed", "pvalue", "isMismatch"]
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Readouts) == answer


def test_the_table_keeps_to_its_width_whatever_the_numbers() -> None:
    long = "p" * 100
    moments = (
        PlacementMoments(long, 0.1, arm(900, 5, 1e11), arm(100, 9, 1.0), merged_units=1),
        PlacementMoments("hero", 0.1, arm(9, 3, -1e11), arm(1, 1)),
        PlacementMoments("*", 0.5, huge(123_456_789), huge(120_456_789), merged_units=12_345),
    )
    text = render(readouts(ReadoutQuery(AS_OF, moments)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH_MAX
    assert lines[3] == "-" * len(lines[3])
    assert lines[4].startswith("p" * 13)
    assert "…" not in "".join(line.lstrip("p").removeprefix("…") for line in lines)
    assert "(1 visitor had both arms before a merge.)" in " ".join(text.split())
    assert all(line.isprintable() for line in lines)


def huge(units: int) -> UnitMoments:
    """Return very many visitors, a tenth of whom reached the goal."""
    outcomes = units // 10
    return UnitMoments(
        units=units,
        decisions=units,
        outcomes=outcomes,
        value=123_456.789 * outcomes,
        decisions_squared=units,
        outcomes_squared=outcomes,
        outcomes_by_decisions=outcomes,
        value_squared=123_456.789**2 * outcomes,
    )


def test_a_report_reads_like_this() -> None:
    moments = PlacementMoments("hero", 0.1, arm(9000, 5), arm(1000, 10))
    assert render(readouts(ReadoutQuery(AS_OF, (moments,), metric="rate"))) == EXPECTED


EXPECTED = """\
What personalization earned, as of 2024-01-02T03:04:05.500Z

Placement  Metric      Personalized           Holdout      Lift      95 % interval       p
------------------------------------------------------------------------------------------
hero       rate    20.00 % of 9,000  10.00 % of 1,000  +100.0 %  +65.3 to +142.0 %  <0.001

hero, rate: Personalized visitors reached the goal 100.0 % more often than the holdout (95 %
  interval 65.3 % to 142.0 %).
"""
