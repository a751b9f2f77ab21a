"""Runs a user's own model code with one call of `predict_fn` for several invocations."""

from functools import partial
from pathlib import Path
from typing import Any

from microjobs.errors import UserError

from .batching import MAX_BATCH_ROWS, MODE_VARIABLE
from .default_handlers import ChooseDefaults, choose_bundle_defaults
from .handler_context import Context
from .handler_model import HandlerModel
from .responses import HttpResponse
from .service import BatchModel, DecodedRequest, Invocation
from .user_program import PARAMETERS_BY_FUNCTION, import_program, takes_context


class BatchedHandlerModel(HandlerModel):
    """The user's functions and model; `predict_fn` gets the arrays of several invocations, joined by rows.

    See `HandlerModel` for the arguments.

    Raises:
        UserError: an error of `HandlerModel`, or the program's functions cannot handle several invocations.
    """

    max_batch_rows = MAX_BATCH_ROWS

    def __init__(
        self,
        program: Path | None,
        model_dir: Path,
        default_accept: str = "",
        choose_defaults: ChooseDefaults = choose_bundle_defaults,
    ) -> None:
        super().__init__(program, model_dir, default_accept, choose_defaults)
        if program is not None:
            _check_functions(program)

    @property
    def batch_model(self) -> BatchModel:
        return self

    def decode(self, invocation: Invocation) -> DecodedRequest:
        """Return the result of `input_fn`; see `microjobs.hosting.service.BatchModel`."""
        body, content_type, accept, context = self._make_arguments(invocation)
        with self._run_user_code(415):
            rows = self._input_fn(context, body, content_type)
        return DecodedRequest(rows, partial(self._encode, accept, context))

    def predict(self, rows: Any) -> Any:
        """Return the result of `predict_fn`, which has no context, because a context belongs to one invocation."""
        with self._run_user_code(415):
            return self._predict_fn(Context(self._model_dir), rows, self._model)

    def _encode(self, accept: str, context: Context, prediction: Any) -> HttpResponse:
        with self._run_user_code(406):
            return self._respond(self._output_fn(context, prediction, accept), accept, context)


def _check_functions(program: Path) -> None:
    module = import_program(program)
    if hasattr(module, "transform_fn"):
        problem = "transform_fn, which handles one request: define input_fn, predict_fn and output_fn"
    elif (predict := getattr(module, "predict_fn", None)) and takes_context(
        f"{program.name}: predict_fn", predict, PARAMETERS_BY_FUNCTION["predict_fn"]
    ):
        problem = "predict_fn with a context, which belongs to one request: remove this parameter"
    else:
        return
    raise UserError(f"{MODE_VARIABLE} is on, but {program.name} has {problem}, or unset the variable")
