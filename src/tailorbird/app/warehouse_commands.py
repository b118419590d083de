"""The command `tailorbird warehouse`: make history from the log, or say what is there.

`build` needs the folder to itself; `status` reads what the manifest names, also beside a running server.
"""

import argparse
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.app.config import load_config, load_keys
from tailorbird.app.engine import Engine, catch_up, current_state, current_warehouse
from tailorbird.app.keeper import Keeper
from tailorbird.app.server import options_of
from tailorbird.clock import SystemClock
from tailorbird.errors import ConfigurationError, CorruptLogError
from tailorbird.live.world import TABLES as STATE_TABLES
from tailorbird.process.worker import Fold
from tailorbird.stores.parquet import ParquetWarehouse, discard
from tailorbird.stores.sqlite import SqliteState
from tailorbird.stores.warehouse import TABLES

_encoder = msgspec.msgpack.Encoder()


def run_warehouse(options: argparse.Namespace) -> int:
    """Carry out one action and print its result."""
    config = load_config(options.config, {"data": options.data})
    if not Path(config.data).is_dir():
        raise ConfigurationError(f"--data: there is no folder {config.data!r}")
    result, text = _build(config) if options.action == "build" else _status(Path(config.data))
    print(msgspec.json.encode(result).decode() if options.json else text)
    return 0


# --- status -----------------------------------------------------------------------------------------


def _status(folder: Path) -> tuple[dict[str, Any], str]:
    state = current_state(folder)
    warehouse = ParquetWarehouse(current_warehouse(folder))
    behind = max(_state_offset(state) - warehouse.offset, 0)
    tables = {table: size._asdict() for table, size in warehouse.sizes().items()}
    result = {
        "folder": str(warehouse.folder),
        "offset": warehouse.offset,
        "behindState": behind,
        "tables": tables,
    }
    lines = [f"{warehouse.folder}: all of the log before offset {warehouse.offset}"]
    if behind:
        lines.append(f"{behind} records that the state has folded are missing: `tailorbird warehouse build`")
    lines += [
        f"  {table:<13}{size.rows:>12,} rows {size.files:>6} files {size.bytes / 1e6:>10.1f} MB"
        f"  {size.first_day or ''} {size.last_day or ''}".rstrip()
        for table, size in warehouse.sizes().items()
    ]
    return result, "\n".join(lines)


def _state_offset(path: Path | None) -> int:
    if path is None:
        return 0
    state = SqliteState(path, STATE_TABLES)
    try:
        return state.offset
    finally:
        state.close()


# --- build ------------------------------------------------------------------------------------------


def _build(config: Any) -> tuple[dict[str, Any], str]:  # noqa: ANN401
    """Fold the log into a fresh warehouse, and put it in the place of one that lacks or differs."""
    folder, clock = Path(config.data), SystemClock()
    keys, _ = load_keys(folder)
    options = msgspec.structs.replace(options_of(config, keys), warehouse=False)
    engine = Engine(folder, options, clock)
    try:
        started = clock.elapsed()
        target = current_warehouse(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix="rebuild-") as made:
            fresh = ParquetWarehouse(Path(made) / "warehouse")
            records = _fold(engine, fresh, Path(made))
            is_same = _is_same(target, fresh)
            if not is_same:
                discard(target)
                target.parent.mkdir(mode=0o700, exist_ok=True)
                if fresh.folder.is_dir():
                    fresh.folder.rename(target)
        seconds = clock.elapsed() - started
    finally:
        engine.close_unchanged()
    rows = sum(size.rows for size in fresh.sizes().values())
    result = {
        "records": records,
        "rows": rows,
        "offset": fresh.offset,
        "seconds": round(seconds, 3),
        "same": is_same,
    }
    verdict = "the warehouse is the same, row for row" if is_same else "the warehouse was made anew"
    return result, f"folded {records} records into {rows} rows in {seconds:.2f} s: {verdict}"


def _fold(engine: Engine, warehouse: ParquetWarehouse, folder: Path) -> int:
    world = engine.new_world(SqliteState(folder / "state.db", STATE_TABLES))
    keeper = Keeper(warehouse)
    fold = Fold(world, engine.options.secret, engine.log, keeper.observer)
    try:
        count = catch_up(fold, engine.log, keeper)
        keeper.write_all(engine.log.end)  # Also where erasure left nothing to fold.
        return count
    finally:
        world.store.close()


def _is_same(folder: Path, fresh: ParquetWarehouse) -> bool:
    """Return whether the warehouse in a folder holds, row for row, what a fresh one does."""
    try:
        kept = ParquetWarehouse(folder)
        return kept.offset == fresh.offset and _digest(kept) == _digest(fresh)
    except CorruptLogError:
        return False


def _digest(warehouse: ParquetWarehouse) -> str:
    """Return a hash over every row of every table."""
    digest = hashlib.blake2b(digest_size=32)
    for table in TABLES:
        for row in warehouse.read(table):
            digest.update(_encoder.encode((table, row)))
    return digest.hexdigest()
