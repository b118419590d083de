"""Recorded and made-up shops for `tailorbird demo`, `replay` and `compute`: by name, or from a file."""

from pathlib import Path
from typing import Final

import msgspec

from tailorbird.app.datasets import complete_journey, online_retail, simulated
from tailorbird.app.datasets.shop import Shop, shared
from tailorbird.errors import ConfigurationError

NAMES: Final = ("online-retail", "completejourney", "simulated")


def load(dataset: str, lines_max: int | None = None) -> Shop:
    """Return the shop of a name in `NAMES` or of a `.parquet` or `.csv` file of invoices.

    Args:
        dataset: `online-retail` (the simulated shop where its file is not here, with a note that
            says so), `completejourney`, `simulated`, or a path.
        lines_max: Read only so many lines, the earliest; without it, all.

    Raises:
        ConfigurationError: The dataset is neither a name nor a readable file of the known columns,
            the folder of `completejourney` is not here, or `lines_max` is below 1.
    """
    if lines_max is not None and lines_max < 1:
        raise ConfigurationError(f"--lines: at least 1 (found {lines_max})")
    if dataset == "simulated":
        return simulated.simulate(simulated.SEED, lines_max or simulated.LINES)
    if dataset == "completejourney":
        return complete_journey.read_folder(_complete_journey(), lines_max)
    if dataset == "online-retail":
        path = shared(online_retail.FILE)
        return _stand_in(lines_max) if path is None else online_retail.read_log(path, lines_max)
    if Path(dataset).suffix not in {".parquet", ".csv"}:
        raise ConfigurationError(
            f"--dataset {dataset}: expected one of {', '.join(NAMES)}, or a .parquet or .csv file"
        )
    return online_retail.read_log(Path(dataset), lines_max)


def _complete_journey() -> Path:
    folder = shared(complete_journey.FOLDER)
    if folder is None:
        raise ConfigurationError(
            f"--dataset completejourney: the folder ../shared/{complete_journey.FOLDER} is not here;"
            f" its files are those of {complete_journey.PUBLISHER}, as Parquet"
        )
    return folder


def _stand_in(lines_max: int | None) -> Shop:
    note = (
        f"the Online Retail log is not here (../shared/{online_retail.FILE}): a simulated shop stands in;"
        f" the log is at {online_retail.PUBLISHER}: save it as CSV and pass --dataset FILE.csv"
    )
    shop = load("simulated", lines_max)
    return msgspec.structs.replace(shop, notes=(note, *shop.notes))
