"""Batch scoring: predicts the targets of test rows with a model, and reports the error.

model   model.tar.gz of a training job, or the extracted folder
test    x_test.npy and y_test.npy, or shards; without targets, the reports have no mse and no mae, and there is no plot
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
from microjobs.hosts import Hosts, RegisterFile, run_on_hosts
from microjobs.predictor import Predictor

from . import scoring


@dataclass(frozen=True)
class Options:
    """Options of the job. The folders are values of `LocalPath` in a request; each host resolves them below its own
    root."""

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
    options = Options(**vars(parser.parse_args(arguments)))
    resources = read_processing_resource_config(Layout.from_environment())
    run_on_hosts(resources, lambda hosts: score(options, hosts))


def score(options: Options, hosts: Hosts) -> None:
    """List the files of all hosts, send the targets that other hosts need, score, and write the report.

    Raises:
        UserError: the model or the arrays are invalid; no report was written.
        PlatformError: a host was lost.
    """
    files_by_host = hosts.call(describe_inputs, dict.fromkeys(hosts.resources.hosts, (options,)))
    files = inventory.merge(files_by_host)
    inventory.require_rows(files, "test")
    inventory.check_files_match(files)
    feature_files = {host: [entry for entry in entries if entry.is_features] for host, entries in files_by_host.items()}
    names_by_host = inventory.assign(feature_files)
    to_send = find_targets_to_send(files_by_host, names_by_host)
    targets_by_host = hosts.call(load_targets_to_send, {host: (options, names) for host, names in to_send.items()})
    remote_targets = {name: targets for part in targets_by_host.values() for name, targets in part.items()}
    scores_by_host = hosts.write(
        score_files,
        {host: (options, names, select_targets(remote_targets, names)) for host, names in names_by_host.items()},
    )
    scores = {name: score for part in scores_by_host.values() for name, score in part.items()}
    total = scoring.Score.sum(scores[name] for name in sorted(scores))
    with_targets = any(not entry.is_features for entry in files.values())
    scoring.write_report(options.resolve(options.batch), total, with_targets=with_targets)


def describe_inputs(options: Options) -> list[inventory.ArrayDescription]:
    """Describe this host's test arrays. Create the host's output folder, which is needed even if it stays empty."""
    options.resolve(options.batch).mkdir(parents=True, exist_ok=True)
    entries = inventory.describe_arrays(options.resolve(options.test))
    return [entry for entry in entries if entry.split == "test"]


def find_targets_to_send(
    files_by_host: Mapping[str, Sequence[inventory.ArrayDescription]], names_by_host: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Return the names of the target files that each host must send, because another host scores their features."""
    host_by_file = {entry.name: host for host, entries in files_by_host.items() for entry in entries}
    own_names_by_host = {host: {entry.name for entry in entries} for host, entries in files_by_host.items()}
    targets_by_sender: dict[str, list[str]] = {}
    for host, names in names_by_host.items():
        for target in ("y" + name[1:] for name in names):
            if target in host_by_file and target not in own_names_by_host[host]:
                targets_by_sender.setdefault(host_by_file[target], []).append(target)
    return targets_by_sender


def select_targets(targets: Mapping[str, Floats], feature_file_names: Sequence[str]) -> dict[str, Floats]:
    """Return the targets of these feature files, by the names of the target files."""
    names = ["y" + name[1:] for name in feature_file_names]
    return {name: targets[name] for name in names if name in targets}


def load_targets_to_send(options: Options, names: list[str]) -> dict[str, Floats]:
    return {name: scoring.load_targets(options.resolve(options.test) / name) for name in names}


def score_files(
    register_file: RegisterFile, options: Options, names: list[str], remote_targets: Mapping[str, Floats]
) -> dict[str, scoring.Score]:
    """Score this host's feature files. If a file fails on any host, all hosts remove their predictions."""
    if not names:
        return {}
    scores = {}
    with open_model_folder(options.resolve(options.model)) as model_folder:
        predictor = Predictor(read_bundle(model_folder))
        for name in names:
            features = open_array(options.resolve(options.test) / name)
            output = options.resolve(options.batch) / scoring.make_predictions_name(name)
            read_targets = scoring.find_targets(features.path, remote_targets)
            scores[name] = scoring.score_file(predictor, features, read_targets, output, options.signature)
            register_file(output)
    return scores
