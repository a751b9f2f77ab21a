"""`microjobs init`: write a CloudFormation template for an AWS account."""

import argparse
import json
from pathlib import Path

from microjobs.files import write_text
from microjobs_orchestrator import images
from microjobs_orchestrator.aws.template import make_template
from microjobs_orchestrator.failures import UsageError

NEXT_STEPS = """{path} is a CloudFormation template with a role, a bucket and {count} repositories. Next steps:

  aws cloudformation deploy --stack-name microjobs --template-file {path} --capabilities CAPABILITY_NAMED_IAM
  aws cloudformation describe-stacks --stack-name microjobs --query 'Stacks[0].Outputs'

Write the output of the second command into microjobs.toml:

  [aws]
  region = "us-east-1"
  role = "arn:aws:iam::123456789012:role/microjobs-us-east-1"
  bucket = "microjobs-123456789012-us-east-1"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        default="microjobs-aws.json",
        metavar="FILE",
        help="output file (default: %(default)s; - for stdout)",
    )
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")


def call(options: argparse.Namespace) -> int:
    jobs = images.list_jobs()
    text = json.dumps(make_template(jobs), indent=2) + "\n"
    if options.file == "-":
        print(text, end="")
        return 0
    path = Path(options.file)
    if path.exists() and not options.force:
        raise UsageError(f"{path} already exists: --force overwrites it")
    try:
        write_text(path, text)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        raise UsageError(f"cannot write {path}: {reason}; choose another file, or - for stdout") from error
    print(NEXT_STEPS.format(path=path, count=len(jobs)), end="")
    return 0
