"""The file pipeline.onnx: a fitted scikit-learn pipeline of a user, which turns named columns into features.

`save_pipeline` is for scripts of users in the image preprocess; it needs skl2onnx. The train jobs copy the file into
the bundle. `OnnxPipeline` runs it; it needs numpy and onnxruntime.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microjobs.bundle import PIPELINE_FILE
from microjobs.errors import UserError
from microjobs.files import write_bytes
from microjobs.predictor import extract_first_line, open_session

TEXT_TYPE = "tensor(string)"
NUMBER_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}
"""numpy's types for the types of numeric inputs. ONNX Runtime's names are the keys, as in TEXT_TYPE."""

TOLERANCE = 1e-4
"""Maximum difference between the features of the pipeline and of its ONNX form. If the absolute value of a feature is
above 1, the difference is relative to this value."""


class OnnxPipeline:
    """A loaded pipeline.onnx. Thread-safe, because ONNX Runtime's `run` is."""

    def __init__(self, path: Path) -> None:
        """Load the file.

        Raises:
            UserError: ONNX Runtime cannot load the file, or an input has a type other than float, double or string.
        """
        self._session = open_session(path)
        self._types = {str(node.name): str(node.type) for node in self._session.get_inputs()}
        for name, type_ in self._types.items():
            if type_ != TEXT_TYPE and type_ not in NUMBER_DTYPES:
                raise UserError(f"{path}: input {name!r} has type {type_}: write the file with save_pipeline")
        shape = self._session.get_outputs()[0].shape
        self.features = shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None
        """Number of features; None if the file does not state it."""

    @property
    def names(self) -> list[str]:
        """Names of the columns that `run` needs."""
        return list(self._types)

    def is_text(self, name: str) -> bool:
        return self._types[name] == TEXT_TYPE

    def run(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return features of shape (rows, features).

        Args:
            columns: the values of each column, by the column's name, shape (rows,): numbers with NaN for missing
                values, or texts with "" for missing values.

        Raises:
            UserError: the pipeline rejects a value.
        """
        inputs = {
            name: columns[name].reshape(-1, 1).astype(NUMBER_DTYPES.get(type_, object))
            for name, type_ in self._types.items()
        }
        try:
            features: NDArray[Any] = self._session.run(None, inputs)[0]
        except Exception as error:  # the exceptions of ONNX Runtime have no common base class
            raise UserError(f"the pipeline rejects a value: {extract_first_line(error)}") from error
        return features.astype(np.float32, copy=False)


def save_pipeline(pipeline: Any, example: Any, folder: str | Path) -> None:
    """Convert a fitted scikit-learn pipeline or ColumnTransformer to ONNX, and write pipeline.onnx into a folder.

    Put the file next to x_train.npy, so that the train jobs copy it into the model.

    Args:
        pipeline: the fitted pipeline. It converts a pandas DataFrame to an array of shape (rows, features).
        example: a DataFrame with rows that check the conversion. Columns of numbers and booleans become inputs of
            single precision. All other columns become inputs of text, in which missing values are "".

    Raises:
        UserError: skl2onnx cannot convert the pipeline, or the converted pipeline returns different features.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    is_text = {str(name): dtype.kind not in "fiub" for name, dtype in example.dtypes.items()}
    types = [(name, (StringTensorType if text else FloatTensorType)([None, 1])) for name, text in is_text.items()]
    try:
        content = to_onnx(pipeline, initial_types=types).SerializeToString()
    except Exception as error:  # skl2onnx raises errors of many types
        raise UserError(f"skl2onnx cannot convert the pipeline: {extract_first_line(error)}") from error
    path = Path(folder) / PIPELINE_FILE
    write_bytes(path, content)
    try:
        _check_features(path, pipeline, example, is_text)
    except UserError:
        path.unlink()
        raise


def _check_features(path: Path, pipeline: Any, example: Any, is_text: Mapping[str, bool]) -> None:
    """Raise UserError if the file and the pipeline make different features from the example."""
    columns = {
        name: (example[name].fillna("").astype(str) if text else example[name].astype(np.float32)).to_numpy()
        for name, text in is_text.items()
    }
    actual = OnnxPipeline(path).run(columns)
    features = pipeline.transform(example)
    expected = np.asarray(features.toarray() if hasattr(features, "toarray") else features, np.float64)
    if actual.shape != expected.shape:
        raise UserError(
            f"{PIPELINE_FILE} makes features of shape {actual.shape}, but the pipeline makes shape {expected.shape}"
        )
    difference = np.abs(actual - expected) / np.maximum(1.0, np.abs(expected))
    is_bad = ~(difference <= TOLERANCE)  # the comparison is negated, so that NaN is bad, too
    if is_bad.any():
        row, feature = map(int, np.argwhere(is_bad)[0])
        raise UserError(
            f"{PIPELINE_FILE} makes {actual[row, feature]} as feature {feature} of row {row}, but the pipeline makes "
            f"{expected[row, feature]}: before you fit the pipeline, replace missing texts with '', and divide large "
            "numbers by a constant"
        )
