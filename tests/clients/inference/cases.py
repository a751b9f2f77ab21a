"""Programs that follow the convention of sagemaker-inference, and requests for each program.

The programs run with AWS's toolkit and with serve. `differences.py` lists the responses that differ on purpose.
"""

import base64
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

JSON, CSV, NPY, NPZ, LINES = (
    "application/json",
    "text/csv",
    "application/x-npy",
    "application/x-npz",
    "application/jsonlines",
)


@dataclass(frozen=True)
class Request:
    """A request for a prediction."""

    body: bytes = b"[1]"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": JSON})

    def to_dict(self) -> dict[str, Any]:
        return {"body": base64.b64encode(self.body).decode(), "headers": dict(self.headers)}


@dataclass(frozen=True)
class Program:
    """The code of a program, and its requests by their names."""

    code: str
    requests: Mapping[str, Request] = field(default_factory=lambda: {"": Request()})

    def to_dict(self) -> dict[str, Any]:
        return {"code": self.code, "requests": [request.to_dict() for request in self.requests.values()]}


def to_npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


MODEL_CODE = "import numpy as np\ndef model_fn(model_dir):\n    return 'model'\n"

# --- predictions for the default output_fn ---

PREDICTION_EXPRESSIONS = {
    "floats": "np.array([[0.1, 2.0], [1e-20, 3e38]])",
    "float32": "np.array([0.1, 2.5], np.float32)",
    "float16": "np.array([0.1, 2.5], np.float16)",
    "integers": "np.array([[1, 2], [3, 2**62]])",
    "booleans": "np.array([True, False])",
    "labels": "np.array(['setosa', 'virginica'])",
    "label-objects": "np.array(['setosa', 'virginica'], object)",
    "mixed-objects": "np.array([[1, 'a'], [None, 2.5]], object)",
    "bytes-array": "np.array([b'a', b'b'])",
    "dates": "np.array(['2026-01-02'], 'datetime64[D]')",
    "complex": "np.array([1+2j])",
    "records": "np.array([(1, 2.5)], 'i4,f8')",
    "three-dimensional": "np.arange(8).reshape(2, 2, 2)",
    "zero-dimensional": "np.array(7.5)",
    "numpy-scalar": "np.float32(0.1)",
    "numpy-text": "np.str_('word')",
    "empty": "np.zeros((0, 3))",
    "list": "[1, 2.5]",
    "nested-list": "[[1, 2], [3, 4]]",
    "ragged-list": "[[1], [2, 3]]",
    "list-of-arrays": "[np.array([1, 2]), np.array([3, 4])]",
    "list-of-dicts": "[{'label': 'a', 'score': 0.5}, {'label': 'b', 'score': np.float32(0.25)}]",
    "list-of-text": "['a', 'b,c', 'd\\ne', 'é']",
    "dict": "{'a': np.array([1.5, 2]), 'b': None, 'c': 'é'}",
    "dict-with-numbers-as-keys": "{1: 2}",
    "dict-with-tuples-as-keys": "{(1, 2): 3}",
    "text": "'word'",
    "two-line-text": "'a\\nb'",
    "bytes": "b'word'",
    "integer": "7",
    "float": "0.1",
    "boolean": "True",
    "none": "None",
    "nan": "np.array([np.nan, np.inf])",
    "tuple": "(1, 2)",
    "set": "{1}",
    "generator": "(n for n in [1, 2])",
    "range": "range(3)",
    "huge-integer": "10**30",
    "surrogate": "'\\ud800'",
    "object-with-tolist": "type('Tensor', (), {'tolist': lambda self: [1, 2]})()",
    "object": "object()",
    "function": "lambda: 1",
}
ACCEPT_TYPES = {"json": JSON, "csv": CSV, "npy": NPY}

# --- Accept headers for the default output_fn ---

ACCEPT_HEADERS = (
    "*/*", "", CSV, f"{CSV}, {JSON}", f"{JSON}, {CSV}", f"{CSV},{JSON}", f"image/png, {CSV}", f"{NPY}, {CSV}",
    f"{CSV};q=0.5, {JSON}", f"{CSV};charset=utf-8, {JSON}", f"{JSON};q=0.1, {CSV}", "image/png", "text/html, */*",
    f"{JSON};q=0.9", "application/*", "Text/CSV", LINES, f" {CSV} ",
)  # fmt: skip

# --- bodies for the default input_fn ---

DESCRIBING_CODE = MODEL_CODE + (
    "def predict_fn(data, model):\n"
    "    array = np.asarray(data)\n"
    "    data[...] = data  # the array must be writable\n"
    "    kinds = {'kind': type(data).__name__, 'dtype': str(array.dtype), 'shape': array.shape}\n"
    "    return {**kinds, 'values': repr(data.tolist())}\n"
)
TEXT_BODIES = {
    JSON: (
        "[[1, 2], [3, 4]]", "[1, 2]", "[[1, 2.5]]", "[1.0, 2.0]", "7", "0.1", "true", "[true, false]", "null",
        "[1, null]",
        '"word"', '["a", "b"]', '[["a", 1]]', '[["é", 1.5]]', '{"instances": [[1, 2]]}', '{"a": 1, "a": 2}', "[]",
        "[[]]",
        "[{}]", '[{"a": 1}]', "[NaN, 1]", "[Infinity]", "[1e400]", "[-0, -0.0]", "[1E5]", "[9223372036854775807]",
        "[9223372036854775808]", "[18446744073709551616]", "[-9223372036854775809]", '"\\ud800"',
        "[0.1234567890123456789]",
        " [1] ", "[[1], [1, 2]]", "[1,]", "{", "x", "\ufeff[1]", "[" * 40 + "]" * 40, "[" * 70 + "]" * 70,
        "[" * 5000 + "]" * 5000, "9" * 5000, '["' + "a" * 300 + '", "b"]',
    ),
    CSV: (
        "1,2\n3,4", "1,2\n3,4\n", "1.5,2.5\n3.5,4.5\n", "1,2.5\n3,4.5", "1,2", "1\n2\n3", "7", "0.1", "1.5", "1.5\n",
        "-1,-2.5",
        "a,b\nc,d", "1,a\n2,b", "1,,3", "1.5,,3.5\n,,", "nan,1", "1e3,2e3", "1.,2.", "+1,2", " 1, 2", "1,2\r\n3,4\r\n",
        "1,2\n\n3,4\n", "true,false", "# 1,2\n3,4", "1,2 # x", '"1","2"', "1;2", "1\t2", "0x1,2", "é,1", "1,2\n3",
        "\ufeff1,2",
        "9007199254740993,1", "123456789012345678901234567890", "1.5,2\n3.5,4\n", "a" * 300 + ",1", "1_0,2", "01,2",
        "-0,-0.0",
    ),
}  # fmt: skip
ARRAYS = {
    "float": np.array([[0.5, 1]]), "float32": np.array([0.5], np.float32), "big-endian": np.array([1.5], ">f8"),
    "integer": np.arange(4).reshape(2, 2), "boolean": np.array([True]), "text": np.array(["a", "bc"]),
    "scalar": np.array(3),
    "complex": np.array([1j]), "empty": np.zeros((0, 3)), "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "record": np.zeros(2, "f4,i4"), "date": np.array(["2026-01-02"], "M8[D]"), "bytes": np.array([b"a"]),
    "three-dimensional": np.zeros((2, 1, 2)),
}  # fmt: skip
NPY_BODIES = {name: to_npy(array) for name, array in ARRAYS.items()} | {
    "pickle": to_npy(np.array([{"a": 1}], object), allow_pickle=True),
    "truncated": to_npy(np.zeros(4))[:-1],
    "nonsense": b"nonsense",
    "trailing": to_npy(np.zeros(1)) + b"more",
}
OTHER_TYPE_REQUESTS = {
    "parameters": Request(b"1,2", {"Content-Type": f"{CSV}; charset=utf-8"}),
    "capitals": Request(b"1,2", {"Content-Type": "Text/CSV"}),
    "unknown": Request(b"1,2", {"Content-Type": "image/png"}),
    "absent": Request(b"[1,2]", {}),
    "lines": Request(b"[1,2]\n", {"Content-Type": LINES}),
    "no-utf-8": Request(b"\xff", {"Content-Type": CSV}),
    "npz-nonsense": Request(b"x", {"Content-Type": NPZ}),
}

# --- arguments, results and errors of each function ---

ECHO_TEMPLATE = "import json\ndef {name}:\n    return json.dumps([str(type(v)) + repr(v) for v in ({values})])\n"
IDENTITY_FUNCTIONS = (
    "def predict_fn(data, model):\n    return data\ndef output_fn(prediction, accept):\n    return prediction\n"
    "def input_fn(body, content_type):\n    return body\n"
)
BODY_REQUESTS = {
    "json": Request(b"[1]"),
    "csv": Request(b"1,2", {"Content-Type": CSV, "Accept": CSV}),
    "octets": Request(b"\xff\0", {"Content-Type": "application/octet-stream", "Accept": "image/png"}),
    "npy": Request(to_npy(np.zeros(1)), {"Content-Type": NPY, "Accept": "*/*"}),
    "two-accepts": Request(b"x", {"Content-Type": "text/plain", "Accept": "image/png, text/plain;q=0.5"}),
}
RETURN_EXPRESSIONS = {
    "text": "'é'", "bytes": "b'\\xff'", "bytearray": "bytearray(b'x')", "list": "[1, {'a': None}]",
    "dict": "{'a': 1}", "none": "None",
    "number": "1.5", "true": "True", "pair": "('x', 'text/plain')", "pair-of-bytes": "(b'x', 'image/png')",
    "pair-of-list": "([1], 'a/b')",
    "triple": "('x', 'text/plain', 7)", "single": "('x',)", "empty-tuple": "()", "pair-without-type": "('x', None)",
    "pair-with-empty-type": "('x', '')", "list-of-two": "['x', 'text/plain']", "object": "object()", "set": "{1}",
}  # fmt: skip
RAISE_EXPRESSIONS = {
    "ValueError": "ValueError('no')", "silent": "Exception()", "KeyError": "KeyError('k')",
    "NotImplementedError": "NotImplementedError()",
    "generic": "errors.GenericInferenceToolkitError(418, 'teapot')",
    "generic-default": "errors.GenericInferenceToolkitError(400)",
    "base": "errors.BaseInferenceToolkitError(503, 'busy', 'Busy')",
    "base-client": "errors.BaseInferenceToolkitError(422, 'm', 'p')",
    "unsupported": "errors.UnsupportedFormatError('a/b')", "recursion": "RecursionError()", "memory": "MemoryError()",
    "subclass": "type('Mine', (errors.BaseInferenceToolkitError,), {})(409, 'm', 'p')",
}  # fmt: skip
SIGNATURES = {
    "model_fn": "model_dir", "input_fn": "data, content_type", "predict_fn": "data, model",
    "output_fn": "prediction, accept",
    "transform_fn": "model, data, content_type, accept", "pre_model_fn": "model_dir",
    "model_warmup_fn": "model_dir, model",
}  # fmt: skip
ERRORS_IMPORT = "from sagemaker_inference import errors\n"
CONTEXT_CODE = (
    "import json\ndef transform_fn(model, data, content_type, accept, context):\n"
    "    names = ('Content-Type', 'Accept', 'X-Custom', 'Absent')\n"
    "    found = [context.get_request_header(0, name) for name in names]\n"
    "    found += [context.get_all_request_header(0).get('X-Custom'), context.model_name, context.manifest]\n"
    "    found += [context.request_processor[0].get_request_properties()['Content-Type']]\n"
    "    found += [context.system_properties['gpu_id'], context.system_properties['batch_size']]\n"
    "    found += [context.get_response_status(0)[0]]\n"
    "    found += [context.system_properties['model_dir'].rsplit('/')[-1].isdigit()]\n"
    "    return json.dumps(found)\n"
)
HOOKS_CODE = (
    "calls = []\n"
    "def pre_model_fn(model_dir):\n    calls.append('pre_model_fn')\n"
    "def model_fn(model_dir):\n    calls.append('model_fn')\n    return 'model'\n"
    "def model_warmup_fn(model_dir, model):\n    calls.append(f'model_warmup_fn {model}')\n"
    "def transform_fn(model, data, content_type, accept):\n    return ' '.join(calls)\n"
)


def _make_default_programs() -> Iterable[tuple[str, Program]]:
    for name, expression in PREDICTION_EXPRESSIONS.items():
        code = f"{MODEL_CODE}def predict_fn(data, model):\n    return {expression}\n"
        yield (
            f"predict_fn {name}",
            Program(
                code,
                {
                    accept: Request(headers={"Content-Type": JSON, "Accept": media})
                    for accept, media in ACCEPT_TYPES.items()
                },
            ),
        )
    code = f"{MODEL_CODE}def predict_fn(data, model):\n    return [1]\n"
    yield (
        "Accept",
        Program(code, {name: Request(headers={"Content-Type": JSON, "Accept": name}) for name in ACCEPT_HEADERS}),
    )
    for media, texts in TEXT_BODIES.items():
        requests = {
            text if len(text) < 60 else f"{text[:9]}…{len(text)}": Request(text.encode(), {"Content-Type": media})
            for text in texts
        }
        yield f"body {media}", Program(DESCRIBING_CODE, requests)
    yield (
        "body npy",
        Program(DESCRIBING_CODE, {name: Request(body, {"Content-Type": NPY}) for name, body in NPY_BODIES.items()}),
    )
    yield "body other", Program(DESCRIBING_CODE, OTHER_TYPE_REQUESTS)


def _make_function_programs() -> Iterable[tuple[str, Program]]:
    for name in ("input_fn", "predict_fn", "output_fn", "transform_fn"):
        other_functions = "" if name == "transform_fn" else IDENTITY_FUNCTIONS
        signature = SIGNATURES[name]
        for suffix, parameters in (
            ("", signature),
            (" with context", f"{signature}, context"),
            (" with option", f"{signature}, context=None"),
        ):
            yield (
                f"{name}{suffix} gets",
                Program(
                    MODEL_CODE + other_functions + ECHO_TEMPLATE.format(name=f"{name}({parameters})", values=signature),
                    BODY_REQUESTS,
                ),
            )
        for case, expression in RAISE_EXPRESSIONS.items():
            yield (
                f"{name} raises {case}",
                Program(
                    f"{MODEL_CODE}{ERRORS_IMPORT}{other_functions}def {name}({signature}):\n    raise {expression}\n"
                ),
            )
    for name in ("output_fn", "transform_fn"):
        for case, expression in RETURN_EXPRESSIONS.items():
            other_functions = IDENTITY_FUNCTIONS if name == "output_fn" else ""
            yield (
                f"{name} returns {case}",
                Program(
                    f"{MODEL_CODE}{other_functions}def {name}({SIGNATURES[name]}):\n    return {expression}\n",
                    BODY_REQUESTS,
                ),
            )
    for name in ("pre_model_fn", "model_fn", "model_warmup_fn"):
        yield (
            f"{name} raises",
            Program(f"{MODEL_CODE}{IDENTITY_FUNCTIONS}def {name}({SIGNATURES[name]}):\n    raise OSError('no')\n"),
        )
        yield (
            f"{name} takes context",
            Program(
                f"{MODEL_CODE}{IDENTITY_FUNCTIONS}def {name}({SIGNATURES[name]}, context):\n"
                "    assert context.system_properties['model_dir'] == model_dir\n"
            ),
        )
        yield f"{name} takes nothing", Program(f"{MODEL_CODE}{IDENTITY_FUNCTIONS}def {name}():\n    pass\n")
    for name in ("input_fn", "predict_fn", "output_fn"):
        yield (
            f"{name} takes too little",
            Program(f"{MODEL_CODE}{IDENTITY_FUNCTIONS}def {name}(data):\n    return data\n"),
        )
        yield (
            f"{name} takes too much",
            Program(f"{MODEL_CODE}{IDENTITY_FUNCTIONS}def {name}(a, b, c, d):\n    return a\n"),
        )
        yield f"{name} is None", Program(f"{MODEL_CODE}def predict_fn(data, model):\n    return data\n{name} = None\n")
        yield (
            f"{name} clashes with transform_fn",
            Program(
                f"{MODEL_CODE}def transform_fn(a, b, c, d):\n    return b\n"
                f"def {name}({SIGNATURES[name]}):\n    return 1\n"
            ),
        )


def _make_context_programs() -> Iterable[tuple[str, Program]]:
    yield "hooks in order", Program(HOOKS_CODE)
    yield "hooks return nothing", Program(HOOKS_CODE.replace("return 'model'", "pass"))
    headers = {"Content-Type": CSV, "Accept": "text/plain", "X-Custom": "mine"}
    yield (
        "context of a request",
        Program(MODEL_CODE + CONTEXT_CODE, {"": Request(b"x", headers), "bare": Request(b"x", {"Content-Type": CSV})}),
    )
    template = "def transform_fn(model, data, content_type, accept, context):\n    context.{call}\n    return 'x'\n"
    for call in (
        "set_response_status(202, 'Later')", "set_response_status(code=429, phrase='Slow', idx=0)",
        "set_all_response_status(503, 'x')",
        "set_response_content_type(0, 'a/b')", "set_response_header(0, 'X-Mine', 'yes')",
        "request_processor[0].report_status(418)",
        "request_processor[0].add_response_property('X-Mine', 'yes')",
    ):  # fmt: skip
        yield f"context.{call}", Program(MODEL_CODE + template.format(call=call))
    package = (
        "from sagemaker_inference import content_types, decoder, default_inference_handler, encoder, errors, utils\n"
    )
    own_functions = (
        "handler = default_inference_handler.DefaultInferenceHandler()\n"
        "def input_fn(data, content_type):\n    return decoder.decode(data, content_type) * 2\n"
        "def predict_fn(data, model):\n    return data\n"
        "def output_fn(prediction, accept):\n    return handler.default_output_fn(prediction, accept)\n"
    )
    requests = {
        media: Request(body, {"Content-Type": media, "Accept": media})
        for media, body in {JSON: b"[1]", CSV: b"1,2"}.items()
    }
    yield "package's own functions", Program(MODEL_CODE + package + own_functions, requests)
    names = "content_types.JSON, content_types.UTF8_TYPES, sorted(encoder.SUPPORTED_CONTENT_TYPES)"
    names += ", utils.parse_accept('a, b')"
    yield "package's constants", Program(f"{MODEL_CODE}{package}def transform_fn(a, b, c, d):\n    return [{names}]\n")
    catch_error = (
        "def transform_fn(a, b, c, d):\n    try:\n        decoder.decode('x', 'text/x')\n"
        "    except errors.UnsupportedFormatError:\n        return 'caught'\n"
    )
    yield "package's errors", Program(MODEL_CODE + package + catch_error)
    malformed = catch_error.replace("'text/x'", "content_types.JSON")
    malformed = malformed.replace("errors.UnsupportedFormatError", "ValueError")
    yield "package's ValueError", Program(MODEL_CODE + package + malformed)


PROGRAMS = {
    name: program
    for make_programs in (_make_default_programs, _make_function_programs, _make_context_programs)
    for name, program in make_programs()
}


def dump_programs() -> str:
    """Return all programs as the JSON that toolkit_handlers.py and serve_handlers.py read."""
    return json.dumps([program.to_dict() for program in PROGRAMS.values()])
