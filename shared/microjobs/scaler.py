"""scaler.json: what preprocessing learned of the training features, so that everybody scales alike."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from microjobs.errors import UserError
from microjobs.files import write_whole

FILE_NAME = "scaler.json"


@dataclass(frozen=True)
class Scaler:
    """Per feature: rows counted, mean, and scale (population standard deviation, 1 where it is zero)."""

    count: Sequence[int]
    mean: Sequence[float]
    scale: Sequence[float]

    @property
    def features(self) -> int:
        return len(self.mean)


def write_scaler(folder: Path, scaler: Scaler) -> None:
    write_whole(folder / FILE_NAME, json.dumps(asdict(scaler), indent=1).encode())


def read_scaler(folder: Path) -> Scaler | None:
    """The scaler in a folder, or None if the data was never scaled.

    Raises:
        UserError: scaler.json is not what `write_scaler` writes.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        scaler = Scaler(
            count=[int(value) for value in content["count"]],
            mean=[float(value) for value in content["mean"]],
            scale=[float(value) for value in content["scale"]],
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is not a scaler ({error!r}): write it with the preprocess job") from error
    if not len(scaler.count) == len(scaler.mean) == len(scaler.scale):
        raise UserError(f"{path}: count, mean and scale differ in length; write it with the preprocess job")
    if not all(map(math.isfinite, [*scaler.mean, *scaler.scale])) or 0 in scaler.scale:
        raise UserError(f"{path}: mean and scale must be finite and scale not zero; write it with the preprocess job")
    return scaler
