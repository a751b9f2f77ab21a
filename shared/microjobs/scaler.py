"""The file scaler.json: the statistics with which preprocessing scaled the features."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from microjobs.errors import UserError
from microjobs.files import write_text

FILE_NAME = "scaler.json"


@dataclass(frozen=True)
class Scaler:
    """Number of values, mean and scale of each feature. The scale is the population standard deviation, or 1 for a
    constant feature."""

    count: Sequence[int]
    mean: Sequence[float]
    scale: Sequence[float]

    @property
    def features(self) -> int:
        return len(self.mean)


def write_scaler(folder: Path, scaler: Scaler) -> None:
    write_text(folder / FILE_NAME, json.dumps(asdict(scaler), indent=1))


def read_scaler(folder: Path) -> Scaler | None:
    """Return the scaler in a folder; None if the data are not scaled.

    Raises:
        UserError: scaler.json is invalid.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        count = [int(value) for value in content["count"]]
        mean, scale = ([float(value) for value in content[name]] for name in ("mean", "scale"))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is not a scaler ({error!r}): write it with the preprocess job") from error
    if not len(count) == len(mean) == len(scale):
        raise UserError(f"{path}: count, mean and scale differ in length; write it with the preprocess job")
    if not all(map(math.isfinite, [*mean, *scale])) or 0 in scale:
        raise UserError(f"{path}: mean and scale must be finite and scale not zero; write it with the preprocess job")
    return Scaler(count, mean, scale)
