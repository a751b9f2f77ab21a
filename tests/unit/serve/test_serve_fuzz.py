"""Predictions for random bodies, compared with the sums of the rows that the bodies contain.

    FUZZ_BODIES=20000 FUZZ_SEED=7 pytest tests/unit/serve/test_serve_fuzz.py

The seed is fixed, so that each run sends the same bodies. The environment can set another seed or number of bodies.
"""

import contextlib
import http.client
import json
import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.unit.serve.bodies import JSON, Body, damaged_bodies, undamaged_bodies
from tests.unit.serve.conftest import Server

BODY_COUNT = int(os.environ.get("FUZZ_BODIES", "1000"))
SEED = int(os.environ.get("FUZZ_SEED", "20261122"))


Send = Callable[[Body], tuple[int, bytes]]


@pytest.fixture
def send(server: Server) -> Iterator[Send]:
    """A function that sends bodies over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)

    def send(body: Body) -> tuple[int, bytes]:
        connection.request("POST", "/invocations", body.content, {"Content-Type": body.media_type, "Accept": JSON})
        response = connection.getresponse()
        return response.status, response.read()

    with contextlib.closing(connection):
        yield send


def check_bodies(strategy: st.SearchStrategy[Body], check: Callable[[Body], None], count: int) -> None:
    """Call the check with this number of bodies."""
    options = settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    seed(SEED)(options(given(strategy)(check)))()


@pytest.mark.slow
def test_generated_bodies_get_the_expected_response(send: Send) -> None:
    def check(body: Body) -> None:
        status, answer = send(body)
        if body.rows is None:
            assert status == 400, (body, status, answer)
            assert set(json.loads(answer)) == {"error"}
        elif status == 500:  # each number fits a float32, but their sum, which the model predicts, does not
            assert np.abs(np.array(body.rows)).max() > 1e38, (body, answer)
        else:
            (predictions,) = json.loads(answer).values()
            expected = np.array(body.rows, np.float32).astype(float).sum(axis=1)
            scale = np.abs(np.array(body.rows)).max(axis=1) + 1e-30
            assert status == 200, (body, answer)
            assert (np.abs(np.ravel(predictions) - expected) <= 1e-6 * scale).all(), (body, answer)

    check_bodies(undamaged_bodies, check, BODY_COUNT // 2)


@pytest.mark.slow
def test_damaged_bodies_get_a_prediction_or_an_error(send: Send) -> None:
    def check(body: Body) -> None:
        status, answer = send(body)
        assert status in (200, 400, 500), (body, status)
        content = json.loads(answer)
        assert set(content) <= {"error", "predictions", "outputs"}
        assert "Traceback" not in str(content)
        if status == 500:
            assert "out of range" in content["error"], (body, content)

    check_bodies(damaged_bodies, check, BODY_COUNT // 2)
