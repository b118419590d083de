"""The port of the warehouse: history by person, from which any person can be folded again as of any time.

One row for each record of the log that touched a person, and for each thing that the fold made of records:

    table          a row is                                                      rank
    declarations   what an operator declared: items of the catalogue, placements    0
    links          an identifier that came to name a profile                        1
    merges         a profile that became part of another                            2
    consents       what a person allows, said through the API                       3
    events         an event, folded into `profile` (None: it identifies nobody)     3
    decisions      a decision, folded into `profile`                                3
    exposures      a decision that was shown, as attribution joined it              4
    outcomes       a decision whose goal was reached, as attribution joined it      4

`offset` is the place of the record in the log, and `rank` the order within one record: a person's rows in the
order of (offset, rank) are what the fold did to them, in the order in which it did.

`known_at` is the largest receipt time of the log up to this record. It never falls as the offset grows, so
what was known at a time t are the rows with `known_at <= t`, whatever a clock that was set back says.

Profiles are named as they were when the record was folded. A merge has one row for the profile that went
(`is_direct`) and one for each that had gone into that one before: what a profile consists of is found
without following a chain.

Records that the fold leaves out (events that came twice) and those that only say who is let in have no
rows. Everything here is derived from the log; the state and its warehouse are made, and made again, together.
"""

from collections.abc import Collection, Iterator
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

from tailorbird.schema.decision import LoggedChoice


class Row(msgspec.Struct, frozen=True, gc=False):
    """What every row has: where in the log, and when it was received and known; epoch seconds."""

    rank: ClassVar[int] = 3
    offset: int
    r: float
    known_at: float


class DeclarationRow(Row, frozen=True, gc=False):
    """A record about the catalogue or placements: its kind and its bytes (see `schema.records`)."""

    rank: ClassVar[int] = 0
    kind: int
    payload: bytes


class LinkRow(Row, frozen=True, gc=False):
    """An identifier (`type:value`) that from now on names a profile, or what that becomes part of."""

    rank: ClassVar[int] = 1
    identifier: str
    profile: str


class MergeRow(Row, frozen=True, gc=False):
    """`newer` is part of `older` from now on: by this merge, or because it was part of what merged."""

    rank: ClassVar[int] = 2
    older: str
    newer: str
    is_direct: bool


class ConsentRow(Row, frozen=True, gc=False):
    """A `ConsentChanged` record, as its bytes, and whose it is."""

    profile: str
    payload: bytes


class EventRow(Row, frozen=True, gc=False):
    """An event: `payload` is the event's own JSON, `t` its corrected time."""

    t: float
    profile: str | None
    message_id: str
    anonymous_id: str | None
    user_id: str | None
    type: str
    name: str
    payload: bytes
    gpc: bool


class DecisionRow(Row, frozen=True, gc=False):
    """A decision: `payload` is the record's JSON, `t` the time it was made for."""

    t: float
    profile: str | None
    decision_id: str
    placement: str
    choices: list[LoggedChoice]
    arms: list[str]
    probabilities: list[float]
    arm: str | None
    holdout: str
    policy: str
    policy_version: int
    rung: str
    reason: str
    payload: bytes


class ExposureRow(Row, frozen=True, gc=False):
    """The first report that a decision was shown: `t` says when."""

    rank: ClassVar[int] = 4
    t: float
    profile: str | None
    decision_id: str
    placement: str


class OutcomeRow(Row, frozen=True, gc=False):
    """The first report that a decision's goal was reached: `t` says when."""

    rank: ClassVar[int] = 4
    t: float
    profile: str | None
    decision_id: str
    placement: str
    value: float


TABLES: dict[str, type[Row]] = {
    "declarations": DeclarationRow,
    "links": LinkRow,
    "merges": MergeRow,
    "consents": ConsentRow,
    "events": EventRow,
    "decisions": DecisionRow,
    "exposures": ExposureRow,
    "outcomes": OutcomeRow,
}

PEOPLE = {
    table: tuple(name for name in ("profile", "older", "newer") if name in row.__struct_fields__)
    for table, row in TABLES.items()
}
"""The columns of each table that name profiles."""

Rows = dict[str, list[Any]]
"""Rows by table, each table's in the order of the log; a table may be missing."""


class TableSize(NamedTuple):
    """How much one table holds; `bytes` on disk, 0 where there is none."""

    rows: int
    files: int
    bytes: int
    first_day: str | None
    last_day: str | None


class Warehouse(Protocol):
    """Tables of history, and the log offset up to which they are written."""

    @property
    def offset(self) -> int:
        """Return the offset of the first record that is not in yet."""

    @property
    def newest(self) -> float:
        """Return the largest receipt time of the log before `offset`; epoch seconds, 0 for none."""

    def write(self, stop: int, newest: float, rows: Rows) -> None:
        """Add the rows of records before `stop`; those before `offset` are in already and left out.

        Either all of them are in and the offset is `stop` when this returns, or nothing has changed. A `stop`
        that is not beyond the offset changes nothing.

        Raises:
            StorageError: The disk refused; nothing has changed.
        """

    def read(self, table: str) -> Iterator[Any]:
        """Yield the rows of a table in the order of the log.

        Raises:
            ValueError: There is no such table.
        """

    def count(self, profiles: Collection[str], offsets: Collection[int]) -> int:
        """Return how many rows name one of `profiles`, or are of one of the records at `offsets`."""

    def sizes(self) -> dict[str, TableSize]:
        """Return how much each table holds."""
