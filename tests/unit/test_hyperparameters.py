"""Hyperparameters: parsing, checks against the declaration, and help."""

from dataclasses import dataclass

import pytest

from microjobs.errors import UserError
from microjobs.hyperparameters import describe, format_help, load, parameter


@dataclass(frozen=True)
class SampleHyperparameters:
    """Hyperparameters of an imaginary trainer."""

    epochs: int = parameter(70, "passes over the data", minimum=1, maximum=1000)
    learning_rate: float = parameter(0.01, "step size", above=0)
    optimizer: str = parameter("sgd", "the optimizer", choices=("sgd", "adam"))
    shuffle: bool = parameter(True, "whether to shuffle")


def test_defaults_apply_without_values() -> None:
    assert load(SampleHyperparameters, {}) == SampleHyperparameters(70, 0.01, "sgd", True)


@pytest.mark.parametrize("epochs", ["5", '"5"', "5.0", '"5.0"'])
def test_whole_numbers_are_parsed_in_all_encodings(epochs: str) -> None:
    assert load(SampleHyperparameters, {"epochs": epochs}).epochs == 5


@pytest.mark.parametrize("text", ["adam", '"adam"'])
def test_text_is_parsed_with_and_without_quotes(text: str) -> None:
    assert load(SampleHyperparameters, {"optimizer": text}).optimizer == "adam"


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ('"true"', True), ("0", False)])
def test_booleans_of_python_and_json_are_parsed(text: str, value: bool) -> None:
    assert load(SampleHyperparameters, {"shuffle": text}).shuffle is value


def test_hyperparameters_of_sagemaker_are_skipped() -> None:
    values = {"sagemaker_region": '"us-east-1"', "_tuning_objective_metric": "val_loss", "model_dir": '"s3://b/k"'}
    assert load(SampleHyperparameters, values) == load(SampleHyperparameters, {})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("epoch", "70", ["'epoch'", "'70'", "did you mean 'epochs'?"]),
        ("zzz", "1", ["'zzz'", "valid names: epochs, learning_rate, optimizer, shuffle"]),
        ("epochs", "abc", ["epochs = 'abc'", "not a whole number"]),
        ("epochs", "1.5", ["epochs = '1.5'", "not a whole number"]),
        ("epochs", "true", ["epochs = 'true'", "not a whole number"]),
        ("epochs", "0", ["below the minimum of 1"]),
        ("epochs", "1001", ["above the maximum of 1000"]),
        ("epochs", "1" + "0" * 400, ["is too large"]),
        ("epochs", "[" * 2400, ["not a whole number"]),
        ("learning_rate", "0", ["must be above 0"]),
        ("learning_rate", "NaN", ["not a finite number"]),
        ("learning_rate", "Infinity", ["not a finite number"]),
        ("learning_rate", "1e999", ["not a finite number"]),
        ("optimizer", "adm", ["not one of sgd, adam", "did you mean 'adam'?"]),
        ("shuffle", "maybe", ["neither true nor false"]),
    ],
)
def test_error_names_value_reason_and_remedy(name: str, value: str, words: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        load(SampleHyperparameters, {name: value})
    assert [word for word in words if word not in str(raised.value)] == []


def test_error_lists_all_invalid_values() -> None:
    with pytest.raises(UserError, match=r"epoch.*optimizer"):
        load(SampleHyperparameters, {"epoch": "1", "optimizer": "x"})


def test_help_has_type_default_and_range_of_each_hyperparameter() -> None:
    lines = format_help(SampleHyperparameters).splitlines()
    assert "epochs" in lines[1]
    assert "int, default 70, >= 1 and <= 1000" in lines[1]
    assert "float, default 0.01, > 0" in lines[2]
    assert "one of sgd adam" in lines[3]


def test_describe_returns_plain_values() -> None:
    assert describe(SampleHyperparameters)[2] == {
        "name": "optimizer",
        "type": "str",
        "default": "sgd",
        "help": "the optimizer",
        "choices": ("sgd", "adam"),
    }
