"""The report: readouts as a plain-text table for a terminal, a log or an e-mail. Pure."""

import textwrap
from typing import Final

from tailorbird.schema.readout import ArmReadout, Estimate, Metric, Readout, Readouts

WIDTH_MAX: Final = 100  # Columns of a page; a longer placement key is cut with an ellipsis.

_HEADINGS = ("Placement", "Metric", "Personalized", "Holdout", "Lift", "95 % interval", "p")
_WORD_COLUMNS = (0, 1)
_GAP = "  "
_NONE = "-"
_HARD_BLANK = "\N{NO-BREAK SPACE}"


def render(readouts: Readouts) -> str:
    """Return the table, and below it what each row means in words; every line fits `WIDTH_MAX`.

    >>> print(render(Readouts("2024-01-02T03:04:05.500Z", ())))
    What personalization earned, as of 2024-01-02T03:04:05.500Z
    <BLANKLINE>
    No placement has been decided yet.
    <BLANKLINE>
    """
    title = f"What personalization earned, as of {readouts.as_of}"
    if not readouts.readouts:
        return f"{title}\n\nNo placement has been decided yet.\n"
    rows = [_row(readout) for readout in readouts.readouts]
    words = [line for readout in readouts.readouts for line in _words(readout)]
    return "\n".join([title, "", *_table(rows), "", *words]) + "\n"


def _row(readout: Readout) -> tuple[str, ...]:
    lift = readout.lift
    return (
        readout.placement,
        readout.metric,
        _arm(readout.arms.personalized, readout.metric),
        _arm(readout.arms.holdout, readout.metric),
        _NONE if lift is None else f"{_signed_percent(lift.value)} %",
        _NONE if lift is None else f"{_signed_percent(lift.low)} to {_signed_percent(lift.high)} %",
        _pvalue(lift or readout.difference),
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Return heading, rule and rows: the first two columns to the left, numbers to the right.

    Numbers are bounded by how they are written (see below); placements get the room that is left,
    which is 14 characters at least.
    """
    all_rows = [_HEADINGS, *rows]
    widths = [max(map(len, column)) for column in zip(*all_rows, strict=True)]
    widths[0] = min(widths[0], WIDTH_MAX - sum(widths[1:]) - len(_GAP) * (len(widths) - 1))
    lines = [_line(row, widths) for row in all_rows]
    return [lines[0], "-" * (sum(widths) + len(_GAP) * (len(widths) - 1)), *lines[1:]]


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        _cut(cell, width).ljust(width) if column in _WORD_COLUMNS else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return _GAP.join(cells).rstrip()


def _words(readout: Readout) -> list[str]:
    merged = readout.merged_arms
    note = f" ({merged:,} visitor{'s' * (merged != 1)} had both arms before a merge.)" if merged else ""
    text = f"{readout.placement}, {readout.metric}: {readout.verdict}{note}"
    unbroken = text.replace(" %", _HARD_BLANK + "%")  # A number stays on the line of its sign.
    lines = textwrap.wrap(unbroken, WIDTH_MAX, subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace(_HARD_BLANK, " ") for line in lines]


def _arm(arm: ArmReadout, metric: Metric) -> str:
    """Return an arm's metric and the number of its visitors, in at most 18 characters."""
    if arm.rate is None:
        told = _NONE
    else:
        told = f"{100 * arm.rate:.2f} %" if metric == "rate" else _amount(arm.rate)
    return f"{told} of {_count(arm.units)}"


def _pvalue(estimate: Estimate | None) -> str:
    if estimate is None:
        return _NONE
    return f"{estimate.pvalue:.3f}" if estimate.pvalue >= 0.001 else "<0.001"  # noqa: PLR2004


def _signed_percent(share: float) -> str:
    """Return a share in per cent with its sign, in at most 6 characters.

    >>> _signed_percent(0.0812), _signed_percent(-1.0), _signed_percent(42.0), _signed_percent(1e6)
    ('+8.1', '-100.0', '+4200', '+1e+08')
    """
    percent = 100.0 * share
    if abs(percent) < 999.95:  # noqa: PLR2004 (what rounds to four digits before the point)
        return f"{percent:+.1f}"
    return f"{percent:+.0f}" if abs(percent) < 9999.5 else f"{percent:+.0e}"  # noqa: PLR2004


def _count(number: int) -> str:
    """Return a count in at most 6 characters.

    >>> _count(0), _count(99_999), _count(123_456), _count(12_345_678)
    ('0', '99,999', '123k', '12.3M')
    """
    if number < 100_000:  # noqa: PLR2004
        return f"{number:,}"
    return f"{number / 1e3:.0f}k" if number < 999_500 else f"{number / 1e6:.3g}M"  # noqa: PLR2004


def _amount(value: float) -> str:
    """Return an amount in at most 8 characters.

    >>> _amount(3.14159), _amount(-12345.6), _amount(-2.5e11)
    ('3.14', '-12,346', '-2.5e+11')
    """
    size = abs(value)
    if size < 999.995:  # noqa: PLR2004
        return f"{value:.2f}"
    return f"{value:,.0f}" if size < 99_999.5 else f"{value:.1e}"  # noqa: PLR2004


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
