"""FastAPI with `fast_codec`."""

import fast_codec
import model
from fastapi import FastAPI, Request, Response

app = FastAPI()
session = model.load()


async def ping() -> Response:
    return Response()


async def invocations(request: Request) -> Response:
    content_type = request.headers["content-type"]
    return Response(fast_codec.predict_body(session, await request.body(), content_type), media_type=content_type)


app.add_api_route("/ping", ping)
app.add_api_route("/invocations", invocations, methods=["POST"])
