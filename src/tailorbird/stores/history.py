"""Queries over history: the warehouse's tables as Ibis expressions, and people as of any past time.

A label asks about one person at one time. Whoever knows the rows that the fold made that person of up to
that time, in the order of the log, can fold them again with the code that runs behind the door, and stops
where the label stands:

    known_at  offset  what      profile
        10.0       3  event     p-2           │
        11.0       5  event     p-1           │ folded in this order, each profile in a state of its own;
        12.0       7  merge     p-1 ◄─ p-2    │ at a merge the newer one's state goes into the older one's
        12.0       7  event     p-1           │
        12.5       –  label     p-1           ▼ here the state of p-1 is what was served at 12.5
        13.0       9  event     p-1

`rows_as_of` gives such a stream for any number of labels, as one expression. It relies on `known_at`, which
never falls as offsets grow (see `stores.warehouse`): ordered by it, with labels behind what was known at
their time, rows are in the order of the log, and no row has to be looked up for a label. Where one of several
rows holds at a time, joins are on half-open intervals of validity, which every engine does alike; an `asof`
join some lack. Times are float64 epoch seconds, UTC.
"""

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from tailorbird.errors import Fault, InvalidInputError, StorageError
from tailorbird.stores.parquet import SCHEMAS, File, ParquetWarehouse
from tailorbird.stores.warehouse import TABLES

LABELS: Final = pa.schema([("label_id", pa.int64()), ("profile", pa.string()), ("t", pa.float64())])
"""Whom a label is about, by profile id, and as of when."""

NAMED_LABELS: Final = pa.schema([("label_id", pa.int64()), ("identifier", pa.string()), ("t", pa.float64())])
"""The same by identifier, `type:value`."""

_LABEL_RANK: Final = 9
_BATCH_ROWS: Final = 8_192
SLICE_ROWS: Final = 131_072  # Sorted at once: some 100 MiB of usual events.
_INFINITE: Final = float("inf")


class History:
    """The tables of one warehouse on DuckDB, as the manifest names their files now.

    `tables` are Ibis tables by name; `connection` takes SQL over views of the same names. Each has a column
    `day` beside those of its rows: the UTC date of `known_at`, by which files are laid out.
    """

    def __init__(self, folder: Path, memory_mib: int = 1024) -> None:
        """Open the warehouse in `folder`.

        Args:
            folder: Of one warehouse, as `tailorbird warehouse status` names it.
            memory_mib: What queries may take; what does not fit is spilled to a temporary folder.

        Raises:
            CorruptLogError: The warehouse is damaged.
        """
        warehouse = ParquetWarehouse(folder)
        self._cuts = _cuts(warehouse.files)
        self._numbers = itertools.count()
        self._spill = tempfile.TemporaryDirectory(prefix="tailorbird-history-")
        self.connection = ibis.duckdb.connect(
            memory_limit=f"{memory_mib}MiB",
            temp_directory=self._spill.name,
            preserve_insertion_order=False,
        )
        self.offset = warehouse.offset
        """The log offset up to which the tables are written."""
        self.tables: dict[str, ir.Table] = {
            table: self._open(table, warehouse.paths(table)) for table in TABLES
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all queries and delete what they spilled."""
        self.connection.disconnect()
        self._spill.cleanup()

    def rows_as_of(self, labels: pa.Table) -> Iterator[pa.RecordBatch]:
        """Yield the rows of `rows_as_of` for labels of the schema `LABELS`, in bounded memory.

        A slice of the past after the other, so that memory and the time to the first row do not grow with
        history: it is what is sorted at once.

        Raises:
            InvalidInputError: A label lacks a value, or its time is no number.
            StorageError: A file is gone: the server merged or erased it meanwhile; open history again.
        """
        merges = self.tables["merges"]
        with (
            self._labels(labels, LABELS) as asked,
            self._kept(_placed(merges, asked)) as placed,
            self._kept(_with_parts(merges, _needed(placed))) as wanted,
        ):
            for since, before in itertools.pairwise(self._cuts):
                yield from self.stream(_rows(self.tables, placed, wanted, (since, before)))

    def profiles_named(self, labels: pa.Table) -> pa.Table:
        """Return labels of the schema `LABELS` for those of `NAMED_LABELS`: see `profiles_named`.

        Raises:
            InvalidInputError: As `rows_as_of`.
            StorageError: As `rows_as_of`.
        """
        with self._labels(labels, NAMED_LABELS) as asked:
            found = profiles_named(self.tables, asked).order_by("label_id")
            return pa.Table.from_batches(self.stream(found), LABELS)

    def stream(self, expression: ir.Table) -> Iterator[pa.RecordBatch]:
        """Yield the rows of an expression over the tables.

        Raises:
            StorageError: A file is gone, or cannot be read.
        """
        try:
            # Not by `to_pyarrow_batches`: Ibis 12 asks DuckDB 2 for what it calls by another name now.
            query = self.connection.compile(expression)
            yield from self.connection.con.sql(query).to_arrow_reader(_BATCH_ROWS)
        except duckdb.IOException as error:
            raise StorageError(f"history cannot be read, open it again: {error}") from error

    @contextmanager
    def _kept(self, expression: ir.Table) -> Iterator[ir.Table]:
        """Hold what an expression gives now as a table."""
        name = f"kept_{next(self._numbers)}"
        self.connection.con.execute(f"create temp table {name} as {self.connection.compile(expression)}")
        try:
            yield self.connection.table(name)
        finally:
            self.connection.con.execute(f"drop table {name}")

    @contextmanager
    def _labels(self, labels: pa.Table, schema: pa.Schema) -> Iterator[ir.Table]:
        """Hold labels as a table.

        Raises:
            InvalidInputError: One lacks a value, or its time is no number.
        """
        name = f"labels_{next(self._numbers)}"
        self.connection.con.register(name, _checked(labels, schema))
        try:
            yield self.connection.table(name)
        finally:
            self.connection.con.unregister(name)

    def _open(self, table: str, paths: list[Path]) -> ir.Table:
        if paths:
            return self.connection.read_parquet(
                [str(path) for path in paths], table_name=table, hive_partitioning=True
            )
        schema = SCHEMAS[table].append(pa.field("day", pa.date32()))
        return self.connection.create_table(table, schema=ibis.Schema.from_pyarrow(schema), temp=True)


def rows_as_of(tables: Mapping[str, ir.Table], labels: ir.Table) -> ir.Table:
    """Return all rows that the labelled people were folded of, and the labels among them, in order.

    Args:
        tables: The warehouse's.
        labels: label_id, profile, t; as many of one person as you like. A profile that had become part of
            another one by `t` stands for that one.

    Returns:
        Rows in the order of the log, a label behind the last record that was known at its time:

            what      declaration, merge, consent, event, decision, exposure, outcome or label
            offset    of the record; null for labels
            known_at  largest receipt time up to the record; a label's time
            r, t      of the record: receipt, and the time it is about; null where it has none
            profile   whose row it is, as it was folded; a merge's older one; who a label stands for
            detail    a merge's newer profile; an event's message id; a decision's id
            value     of an outcome
            gpc       of an event: whether it came with the signal
            kind      of a declaration: the kind of its record
            payload   an event's own JSON; the record's JSON of declarations, consents and decisions
            label_id  of a label

        A person's rows are those of every profile that had become part of them until the last of their
        labels, up to that time. Declarations are all of the catalogue and placements up to the last label.
    """
    placed = _placed(tables["merges"], labels)
    wanted = _with_parts(tables["merges"], _needed(placed))
    return _rows(tables, placed, wanted, (-_INFINITE, _INFINITE))


def profiles_named(tables: Mapping[str, ir.Table], labels: ir.Table) -> ir.Table:
    """Return (label_id, profile, t) of labels (label_id, identifier, t): whom each named at its time.

    What named nobody then is left out. The profile may have become part of another one by then; `rows_as_of`
    follows that.
    """
    links = _with_ends(tables["links"], "identifier")
    return labels.inner_join(
        links,
        [labels.identifier == links.identifier, links.known_at <= labels.t, labels.t < links.ends_at],
    ).select("label_id", "profile", t=labels.t)


def _rows(
    tables: Mapping[str, ir.Table], placed: ir.Table, wanted: ir.Table, known: tuple[float, float]
) -> ir.Table:
    """Return the stream of `rows_as_of` as far as it was known in the half-open interval `known`."""
    since, before = known
    tables = {
        name: table.filter((table.known_at >= since) & (table.known_at < before))
        for name, table in tables.items()
    }
    declarations = tables["declarations"].cross_join(placed.agg(last=placed.t.max()))
    merges = tables["merges"].filter(tables["merges"].is_direct)
    labels = placed.filter((placed.t >= since) & (placed.t < before))
    parts = [
        _shaped(declarations.filter(declarations.known_at <= declarations.last), "declaration", 0),
        _shaped(_of(merges.rename(profile="older", detail="newer"), wanted), "merge", 2),
        _shaped(_of(tables["consents"], wanted), "consent", 3),
        _shaped(_of(tables["events"].rename(detail="message_id"), wanted), "event", 3),
        _shaped(_of(tables["decisions"].rename(detail="decision_id"), wanted), "decision", 3),
        _shaped(_of(tables["exposures"].rename(detail="decision_id"), wanted), "exposure", 4),
        _shaped(_of(tables["outcomes"].rename(detail="decision_id"), wanted), "outcome", 5),
        _shaped(labels.mutate(known_at=labels.t), "label", _LABEL_RANK),
    ]
    rows = ibis.union(parts[0], *parts[1:], distinct=False)
    is_label = rows.rank == _LABEL_RANK
    return rows.order_by(["known_at", is_label, "offset", "rank", "label_id"]).drop("rank")


def _cuts(files: Sequence[File]) -> list[float]:
    """Return at which times the past is cut so that each slice holds some `SLICE_ROWS` rows."""
    cuts, rows = [-_INFINITE], 0
    for file in sorted(files, key=lambda file: file.known_at):
        if rows >= SLICE_ROWS and file.known_at > cuts[-1]:
            cuts.append(file.known_at)
            rows = 0
        rows += file.rows
    return [*cuts, _INFINITE]


_COLUMNS: Final[dict[str, str]] = {
    "what": "string",
    "rank": "int64",
    "offset": "int64",
    "known_at": "float64",
    "r": "float64",
    "t": "float64",
    "profile": "string",
    "detail": "string",
    "value": "float64",
    "gpc": "boolean",
    "kind": "int64",
    "payload": "string",
    "label_id": "int64",
}


def _shaped(rows: ir.Table, what: str, rank: int) -> ir.Table:
    """Return rows in the columns of all, null where they have none of a name."""
    known: dict[str, Any] = {"what": ibis.literal(what), "rank": ibis.literal(rank)}
    known |= {name: rows[name] for name in rows.columns if name in _COLUMNS}
    return rows.select(**{name: known.get(name, ibis.null()).cast(kind) for name, kind in _COLUMNS.items()})


def _placed(merges: ir.Table, labels: ir.Table) -> ir.Table:
    """Return labels with whom their profile had become part of by then."""
    owners = _with_ends(merges, "newer")
    joined = labels.left_join(
        owners, [labels.profile == owners.newer, owners.known_at <= labels.t, labels.t < owners.ends_at]
    )
    return joined.select("label_id", t=labels.t, profile=joined.older.coalesce(labels.profile))


def _with_ends(rows: ir.Table, key: str) -> ir.Table:
    """Return rows with when the next one of the same `key` takes their place: they hold before that."""
    following = rows.known_at.lead().over(group_by=key, order_by="offset")
    return rows.select(*{key, "known_at", *_NAMES_OF[key]}, ends_at=following.coalesce(_INFINITE))


_NAMES_OF: Final = {"newer": ("older",), "identifier": ("profile",)}


def _needed(placed: ir.Table) -> ir.Table:
    """Return (profile, until): until when each labelled person is needed."""
    return placed.group_by("profile").agg(until=placed.t.max())


def _with_parts(merges: ir.Table, needed: ir.Table) -> ir.Table:
    """Return (profile, until) of people and of every profile that had become part of them until then."""
    parts = merges.inner_join(
        needed, [merges.older == needed.profile, merges.known_at <= needed.until]
    ).select(profile=merges.newer, until=needed.until)
    everybody = ibis.union(needed.select("profile", "until"), parts, distinct=False)
    return everybody.group_by("profile").agg(until=everybody.until.max())


def _of(rows: ir.Table, wanted: ir.Table) -> ir.Table:
    """Return the rows of wanted profiles, each until it is wanted no more."""
    joined = rows.inner_join(wanted, [rows.profile == wanted.profile, rows.known_at <= wanted.until])
    return joined.select(*(rows[name] for name in rows.columns if name in _COLUMNS))


def _checked(labels: pa.Table, schema: pa.Schema) -> pa.Table:
    try:
        found = labels.select(schema.names).cast(schema)
    except (KeyError, pa.ArrowInvalid) as error:
        raise InvalidInputError(Fault("labels", f"a table of {', '.join(schema.names)}: {error}")) from error
    for name in schema.names:
        if found[name].null_count:
            raise InvalidInputError(Fault(f"labels.{name}", "a value in every row"))
    if not pc.all(pc.is_finite(found["t"]), min_count=0).as_py():
        raise InvalidInputError(Fault("labels.t", "epoch seconds, a number"))
    return found
