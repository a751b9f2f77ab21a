"""Requests as a program for boto3, and as commands of the AWS CLI."""

import json
from collections.abc import Sequence
from typing import Any

from botocore import xform_name

from microjobs_orchestrator.local.console.code.expressions import Call, Statement, format_program, make_json_call
from microjobs_orchestrator.local.console.code.requests import SERVICE, CreateRequest

JSON_TEXT_MEMBERS = ("PipelineDefinition",)
"""Members whose value is JSON text. Python programs contain the parsed value, which is easier to read."""


def format_boto3(requests: Sequence[CreateRequest], url: str, region: str) -> str:
    """Return a Python program for boto3."""
    settings = {"region_name": region, "endpoint_url": url}
    client = Statement(Call("boto3.client", settings, [SERVICE], module="boto3"), "client")
    return format_program([client, *(make_client_call(request, "client") for request in requests)])


def format_cli(requests: Sequence[CreateRequest], url: str, region: str) -> str:
    """Return commands for a POSIX shell.

    The commands write the request to a file, because the length of an argument is limited. JSON contains no line `END`,
    so this line can end the file's content.
    """
    return "\n".join(_format_command(request, url, region) for request in requests)


def _format_command(request: CreateRequest, url: str, region: str) -> str:
    command = xform_name(request.operation, "-")
    return (
        f"cat >{command}.json <<'END'\n{json.dumps(request.members, indent=2)}\nEND\n"
        f"aws {SERVICE} {command} --endpoint-url {url} --region {region} \\\n"
        f"  --cli-input-json file://{command}.json\n"
    )


def make_client_call(request: CreateRequest, client: str, comment: str = "") -> Statement:
    """Return the call of a boto3 client that sends the whole request."""
    members = {name: format_member(name, value) for name, value in request.members.items()}
    return Statement(Call(f"{client}.{xform_name(request.operation)}", members), comment=comment)


def format_member(name: str, value: Any) -> Any:
    """Return the value of a member in a program. For JSON text, this is a call of `json.dumps`."""
    return make_json_call(json.loads(value)) if name in JSON_TEXT_MEMBERS else value
