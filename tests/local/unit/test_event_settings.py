"""Patterns of events, and the settings of their targets."""

from pathlib import Path
from typing import Any

import pytest

from microjobs_orchestrator.local.config import Config, ConfigError, load, merge_flags
from microjobs_orchestrator.local.event_patterns import check_pattern, matches
from microjobs_orchestrator.local.event_settings import EventTarget, read_targets
from microjobs_orchestrator.local.kinds import load_kinds

EVENT: dict[str, Any] = {
    "source": "aws.sagemaker",
    "detail-type": "SageMaker Model Package State Change",
    "resources": ["arn:a", "arn:b"],
    "detail": {"ModelApprovalStatus": "Approved", "ModelPackageVersion": 2, "Containers": [{"Image": "i"}]},
}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({}, True),
        ({"source": ["aws.sagemaker"]}, True),
        ({"source": ["aws.s3", "aws.sagemaker"]}, True),
        ({"source": ["aws"]}, False),
        ({"source": []}, False),
        ({"resources": ["arn:b"]}, True),
        ({"detail-type": [{"prefix": "SageMaker Model"}]}, True),
        ({"detail-type": [{"prefix": "Model"}]}, False),
        ({"detail-type": [{"suffix": "State Change"}]}, True),
        ({"detail": {"ModelApprovalStatus": ["Approved"], "ModelPackageVersion": [2]}}, True),
        ({"detail": {"ModelApprovalStatus": ["Rejected"], "ModelPackageVersion": [2]}}, False),
        ({"detail": {"ModelApprovalStatus": [{"equals-ignore-case": "approved"}]}}, True),
        ({"detail": {"ModelApprovalStatus": [{"anything-but": "Rejected"}]}}, True),
        ({"detail": {"ModelApprovalStatus": [{"anything-but": ["Rejected", "Approved"]}]}}, False),
        ({"detail": {"Absent": [{"anything-but": "x"}]}}, False),
        ({"detail": {"ModelPackageVersion": ["2"]}}, False),
        ({"detail": {"ModelPackageVersion": [True]}}, False),
        ({"detail": {"ModelPackageVersion": [{"prefix": "2"}]}}, False),
        ({"detail": {"FailureReason": [{"exists": False}], "ModelApprovalStatus": [{"exists": True}]}}, True),
        ({"detail": {"FailureReason": [{"exists": True}]}}, False),
        ({"detail": {"Containers": {"Image": ["i"]}}}, True),
        ({"source": {"x": ["y"]}}, False),
    ],
)
def test_pattern_selects_events(pattern: dict[str, Any], expected: bool) -> None:
    check_pattern(pattern)
    assert matches(pattern, EVENT) is expected


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "needs exactly one of file, command, webhook"),
        ({"file": "a", "webhook": "http://127.0.0.1/"}, "needs exactly one of"),
        ({"fil": "a"}, "has no setting 'fil'; the settings are file, command"),
        ({"file": 1}, "file has an invalid value: 1"),
        ({"file": "a\0b"}, "file 'a\\\\x00b' must not contain a null character"),
        ({"command": "ls"}, "command has an invalid value: 'ls'"),
        ({"command": [1]}, "command must be a list of strings, not"),
        ({"command": ["ls"], "timeout": 0.0}, "timeout 0.0 must be more than 0 and at most 300 seconds"),
        ({"command": ["ls"], "timeout": 301}, "timeout 301 must be"),
        ({"queue": "http://127.0.0.1/q"}, "must be the name of a queue, such as job-events"),
        ({"file": "a", "queue": "q"}, "needs exactly one of file, command, webhook, queue"),
        ({"webhook": "127.0.0.1:80"}, "must be an address such as http://127.0.0.1:8000/"),
        ({"webhook": "http://127.0.0.1:99999/"}, "must be an address such as"),
        ({"webhook": "http://user@127.0.0.1/"}, "must be an address such as"),
        ({"webhook": "http://127.0.0.1/a\r\nb: c"}, "must be an address such as"),
        ({"webhook": "http://192.168.0.1/"}, "is not on this machine: use 127.0.0.1, or set allow_remote"),
        ({"webhook": "http://localhost.example.com/"}, "is not on this machine"),
        ({"file": "a", "pattern": {"source": "aws"}}, "pattern source must be a list of values or a table, not 'aws'"),
        ({"file": "a", "pattern": {"detail": {"a": [{"numeric": 1}]}}}, "pattern detail.a has .*use a value, or a tab"),
        ({"file": "a", "pattern": {"source": [{"prefix": 1}]}}, "pattern source has an invalid value for prefix: 1"),
        ("a", r"\[\[local.events\]\] must be tables, not 'a'"),
    ],
)
def test_invalid_target_is_refused(table: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        merge_flags(Config(events=[table]))


def test_duplicate_target_is_refused() -> None:
    with pytest.raises(ValueError, match="has 'a' twice with the same settings: remove one"):
        read_targets([{"file": "a"}, {"file": "a"}])


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/a?b=c", "http://localhost/", "http://[::1]:8000/", "https://127.1.1.1"]
)
def test_loopback_addresses_and_allowed_remote_addresses_are_accepted(address: str) -> None:
    assert read_targets([{"webhook": address}])[0].webhook == address
    assert read_targets([{"webhook": "http://example.com/", "allow_remote": True}])


def test_file_configures_targets(tmp_path: Path) -> None:
    file = tmp_path / "microjobs.toml"
    file.write_text(
        '[[local.events]]\nfile = "a.jsonl"\n[[local.events]]\ncommand = ["b"]\ntimeout = 5\n'
        '[local.events.pattern]\nsource = ["aws.sagemaker"]\n'
    )
    file_target, command_target = read_targets(load(file).events)
    assert (file_target.file, command_target.command, command_target.timeout) == ("a.jsonl", ["b"], 5)
    assert command_target.pattern == {"source": ["aws.sagemaker"]}
    assert len({file_target.key, command_target.key, EventTarget(file="a.jsonl", timeout=3.0).key}) == 3


def test_description_has_no_secrets() -> None:
    assert EventTarget(webhook="http://127.0.0.1:1/a?token=secret").description == "http://127.0.0.1:1/a"
    assert EventTarget(command=["notify", "--token", "secret"]).description == "notify"


EVENT_TYPES = {
    "SageMaker Training Job State Change",
    "SageMaker Processing Job State Change",
    "SageMaker Transform Job State Change",
    "SageMaker HyperParameter Tuning Job State Change",
    "SageMaker Endpoint State Change",
    "SageMaker Endpoint Config State Change",
    "SageMaker Model State Change",
    "SageMaker Model Package State Change",
}
"""The types in the examples of https://docs.aws.amazon.com/eventbridge/latest/ref/events-ref-sagemaker.html"""


def test_kinds_have_the_event_types_of_aws() -> None:
    assert {kind.event_type for kind in load_kinds()} >= EVENT_TYPES
