"""FastAPI with the fast parser, for CSV too."""

import model
import numpy as np
import orjson
from fastapi import FastAPI, Request, Response

app = FastAPI()
session = model.load()


async def ping() -> Response:
    return Response()


async def invocations(request: Request) -> Response:
    body, content_type = await request.body(), request.headers["content-type"]
    if content_type == model.JSON:
        predictions = model.predict(session, np.array(orjson.loads(body)["instances"]))
        return Response(orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY))
    if content_type == model.CSV:
        rows = np.array(orjson.loads(b"[[" + body.strip().replace(b"\n", b"],[") + b"]]"))
        text = orjson.dumps(model.predict(session, rows), option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(text[2:-2].replace(b"],[", b"\n") + b"\n", media_type=model.CSV)
    return Response(model.write_npy(model.predict(session, model.read_npy(body))), media_type=model.NPY)


app.add_api_route("/ping", ping)
app.add_api_route("/invocations", invocations, methods=["POST"])
