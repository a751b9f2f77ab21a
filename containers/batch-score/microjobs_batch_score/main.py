"""Batch-score: a model and test arrays in, predictions and a score report out.

model   model.tar.gz as training left it, or the extracted folder
test    x_test.npy and y_test.npy, or shards; without targets there are predictions only
batch   predictions.npy (or shards alike), score-report.txt, report.json, predicted-versus-target.png
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from microjobs import inventory
from microjobs.arguments import Parser
from microjobs.arrays import Floats, open_array
from microjobs.bundle import RAW, SERVING_DEFAULT, extracted, read_bundle
from microjobs.contract import Layout, read_processing_resource_config
from microjobs.files import together
from microjobs.hosts import Calls, Hosts, with_hosts
from microjobs.predictor import Predictor

from . import report, scoring


@dataclass(frozen=True)
class Task:
    """The folders, spelled as a request's `LocalPath`: each host looks them up below its own root."""

    model: str
    test: str
    batch: str
    signature: str

    def folder(self, path: str) -> Path:
        return Layout.from_environment().local(path)


def process(arguments: list[str]) -> None:
    layout = Layout.from_environment()
    parser = Parser("batch-score", description="Predict test arrays with a trained model and report the error.")
    for name in ("model", "test", "batch"):
        parser.add_argument(
            f"--{name}", default=layout.spell(layout.processing(name)), help="folder; default: %(default)s"
        )
    parser.add_argument(
        "--signature", choices=(SERVING_DEFAULT, RAW), default=SERVING_DEFAULT, help="raw: features as measured"
    )
    task = Task(**vars(parser.parse_args(arguments)))
    with_hosts(read_processing_resource_config(layout), lambda hosts: score(task, hosts), CALLS)


def score(task: Task, hosts: Hosts) -> None:
    """Survey all hosts, bring targets to where their features are, score, report.

    Raises:
        UserError: the model or the arrays are wrong; no report was written.
        PlatformError: a host was lost.
    """
    surveys = hosts.each(survey, dict.fromkeys(hosts.names, (task,)))
    files = inventory.merge(surveys)
    inventory.require(files, "test")
    inventory.check(files)
    features = {host: [entry for entry in entries if entry.is_features] for host, entries in surveys.items()}
    work = inventory.assign(features)
    fetched: dict[str, Floats] = {}
    elsewhere = targets_elsewhere(surveys, work)
    for targets in hosts.each(fetch, {host: (task, names) for host, names in elsewhere.items()}).values():
        fetched |= targets
    parts = hosts.each(score_files, {host: (task, names, fetched) for host, names in work.items()})
    scores = {name: part for scores in parts.values() for name, part in scores.items()}
    total = scoring.Score.sum(scores[name] for name in sorted(scores))
    report.write(task.folder(task.batch), total, with_targets=any(not entry.is_features for entry in files.values()))


def survey(task: Task) -> list[inventory.Entry]:
    task.folder(task.batch).mkdir(parents=True, exist_ok=True)
    entries = inventory.survey(task.folder(task.test))
    return [entry for entry in entries if entry.split == "test"]


def targets_elsewhere(
    surveys: Mapping[str, Sequence[inventory.Entry]], work: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Which targets each host has to hand over, because another one scores their features."""
    holder = {entry.name: host for host, entries in surveys.items() for entry in entries}
    own = {host: {entry.name for entry in entries} for host, entries in surveys.items()}
    needed: dict[str, list[str]] = {}
    for host, names in work.items():
        for target in ("y" + name[1:] for name in names):
            if target in holder and target not in own[host]:
                needed.setdefault(holder[target], []).append(target)
    return needed


def fetch(task: Task, names: list[str]) -> dict[str, Floats]:
    return {name: scoring.load_targets(task.folder(task.test) / name) for name in names}


def score_files(task: Task, names: list[str], fetched: Mapping[str, Floats]) -> dict[str, scoring.Score]:
    """Score this host's feature files, all or none; the model is unpacked and loaded on each host that has any."""
    if not names:
        return {}
    scores = {}
    with extracted(task.folder(task.model)) as model, together() as written:
        predictor = Predictor(read_bundle(model))
        for name in names:
            features = open_array(task.folder(task.test) / name)
            output = task.folder(task.batch) / scoring.predictions_name(name)
            targets = scoring.targets_of(features.path, fetched)
            scores[name] = scoring.score_file(predictor, features, targets, output, task.signature)
            written(output)
    return scores


CALLS = Calls((survey, fetch, score_files), (Task, inventory.Entry, scoring.Score))
"""What travels between the hosts."""
