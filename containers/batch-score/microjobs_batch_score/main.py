"""Batch scoring: predicts test arrays with a model and reports the error.

model   model.tar.gz of a training job, or the extracted folder
test    x_test.npy and y_test.npy, or shards; without targets, only predictions are written
batch   predictions.npy (or shards), score-report.txt, report.json, predicted-versus-target.png
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from microjobs import inventory
from microjobs.arguments import Parser
from microjobs.arrays import Floats, open_array
from microjobs.bundle import RAW, SERVING_DEFAULT, open_model_folder, read_bundle
from microjobs.contract import Layout, read_processing_resource_config
from microjobs.hosts import Hosts, Register, run_on_hosts
from microjobs.predictor import Predictor

from . import scoring


@dataclass(frozen=True)
class Task:
    """The options. Folders are `LocalPath`s of a request, because each host resolves them below its own root."""

    model: str
    test: str
    batch: str
    signature: str

    def resolve(self, path: str) -> Path:
        return Layout.from_environment().resolve_local_path(path)


def process(arguments: list[str]) -> None:
    parser = Parser("batch-score", description="Predict test arrays with a trained model and report the error.")
    parser.add_folders("model", "test", "batch")
    parser.add_argument(
        "--signature", choices=(SERVING_DEFAULT, RAW), default=SERVING_DEFAULT, help="raw: features as measured"
    )
    task = Task(**vars(parser.parse_args(arguments)))
    resources = read_processing_resource_config(Layout.from_environment())
    run_on_hosts(resources, lambda hosts: score(task, hosts))


def score(task: Task, hosts: Hosts) -> None:
    """List the files of all hosts, send the targets that other hosts need, score, and write the report.

    Raises:
        UserError: the model or the arrays are invalid; no report was written.
        PlatformError: a host was lost.
    """
    surveys = hosts.call(survey, dict.fromkeys(hosts.resources.hosts, (task,)))
    files = inventory.merge(surveys)
    inventory.require_rows(files, "test")
    inventory.check_files_match(files)
    features = {name: [entry for entry in entries if entry.is_features] for name, entries in surveys.items()}
    work = inventory.assign(features)
    sent = hosts.call(
        load_targets_to_send, {host: (task, names) for host, names in find_remote_targets(surveys, work).items()}
    )
    remote_targets = {name: targets for part in sent.values() for name, targets in part.items()}
    parts = hosts.write(
        score_files, {host: (task, names, select_targets(remote_targets, names)) for host, names in work.items()}
    )
    scores = {name: score for part in parts.values() for name, score in part.items()}
    total = scoring.Score.sum(scores[name] for name in sorted(scores))
    with_targets = any(not entry.is_features for entry in files.values())
    scoring.write_report(task.resolve(task.batch), total, with_targets=with_targets)


def survey(task: Task) -> list[inventory.Entry]:
    task.resolve(task.batch).mkdir(parents=True, exist_ok=True)
    entries = inventory.survey(task.resolve(task.test))
    return [entry for entry in entries if entry.split == "test"]


def find_remote_targets(
    surveys: Mapping[str, Sequence[inventory.Entry]], work: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Return the target files that each host must send, because another host scores their features."""
    host_of_file = {entry.name: host for host, entries in surveys.items() for entry in entries}
    own_files = {host: {entry.name for entry in entries} for host, entries in surveys.items()}
    needed: dict[str, list[str]] = {}
    for host, names in work.items():
        for target in ("y" + name[1:] for name in names):
            if target in host_of_file and target not in own_files[host]:
                needed.setdefault(host_of_file[target], []).append(target)
    return needed


def select_targets(targets: Mapping[str, Floats], features: Sequence[str]) -> dict[str, Floats]:
    """Return those targets that belong to these feature files."""
    names = ["y" + name[1:] for name in features]
    return {name: targets[name] for name in names if name in targets}


def load_targets_to_send(task: Task, names: list[str]) -> dict[str, Floats]:
    return {name: scoring.load_targets(task.resolve(task.test) / name) for name in names}


def score_files(
    register: Register, task: Task, names: list[str], remote_targets: Mapping[str, Floats]
) -> dict[str, scoring.Score]:
    """Score this host's feature files. If one fails on any host, no predictions are written."""
    if not names:
        return {}
    scores = {}
    with open_model_folder(task.resolve(task.model)) as model:
        predictor = Predictor(read_bundle(model))
        for name in names:
            features = open_array(task.resolve(task.test) / name)
            output = task.resolve(task.batch) / scoring.predictions_name(name)
            targets = scoring.find_targets(features.path, remote_targets)
            scores[name] = scoring.score_file(predictor, features, targets, output, task.signature)
            register(output)
    return scores
