"""Expressions of pipelines in the texts of requests, such as `${Parameters.RunName}/models`.

Source of their JSON form: https://docs.aws.amazon.com/sagemaker/latest/dg/build-and-manage-properties.html
"""

import re
from typing import Any

EXPRESSION_PATTERN = re.compile(r"\$\{([^}]+)\}")


def format_expression(target: str) -> str:
    """Return the expression for a value that is known when the pipeline runs, such as `Steps.train.TrainingJobName`."""
    return f"${{{target}}}"


def convert_expressions(value: Any) -> Any:
    """Return a value of a request in which each expression has the JSON form of pipelines: `Get`, or `Std:Join`."""
    if isinstance(value, dict):
        return {name: convert_expressions(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [convert_expressions(item) for item in value]
    return _parse_text(value) if isinstance(value, str) else value


def _parse_text(text: str) -> Any:
    texts = EXPRESSION_PATTERN.split(text)  # the list alternates between literals and the targets of expressions
    values: list[Any] = [{"Get": item} if index % 2 else item for index, item in enumerate(texts) if item]
    if not any(isinstance(item, dict) for item in values):
        return text
    return values[0] if len(values) == 1 else {"Std:Join": {"On": "", "Values": values}}
