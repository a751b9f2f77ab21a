"""The stack of AWS's sample for custom containers: nginx, gunicorn and Flask."""

import io
import json

import model
import numpy as np
from flask import Flask, Response, jsonify, request

app = Flask(__name__)
session = model.load()


@app.get("/ping")
def ping() -> Response:
    return Response(status=200)


@app.post("/invocations")
def invocations() -> Response:
    if request.content_type == model.JSON:
        return jsonify(predictions=model.predict(session, np.array(request.get_json()["instances"])).tolist())
    if request.content_type == model.CSV:
        text = io.StringIO(request.get_data(as_text=True))
        predictions = model.predict(session, np.loadtxt(text, delimiter=",", ndmin=2))
        out = io.StringIO()
        np.savetxt(out, predictions, delimiter=",")
        return Response(out.getvalue(), mimetype=model.CSV)
    if request.content_type == model.JSON_LINES:
        rows = [json.loads(line) for line in request.get_data(as_text=True).splitlines()]
        lines = [json.dumps(row) + "\n" for row in model.predict(session, np.array(rows)).tolist()]
        return Response("".join(lines), mimetype=model.JSON_LINES)
    predictions = model.predict(session, model.read_npy(request.get_data()))
    return Response(model.write_npy(predictions), mimetype=model.NPY)
