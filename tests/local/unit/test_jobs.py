"""Tests for the parts of jobs: inputs, outputs, ends of hosts, hyperparameter searches, and limits of instances."""

import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from microjobs_orchestrator.local import instances
from microjobs_orchestrator.local.errors import ValidationError
from microjobs_orchestrator.local.lifecycle import hosts as lifecycle_hosts
from microjobs_orchestrator.local.lifecycle import inputs, outputs
from microjobs_orchestrator.local.lifecycle.events import EventQueue, Interruption, StopReason
from microjobs_orchestrator.local.resources.tuning.ranges import Range, list_tuned_names, read_ranges
from microjobs_orchestrator.local.resources.tuning.search import HyperbandResources, TrialSearch, read_resources
from microjobs_orchestrator.local.runtimes.base import CannotRunError, Exit, Line
from microjobs_orchestrator.local.s3.store import ObjectStore
from microjobs_orchestrator.local.trees import Tree
from tests.local.jobs.waiting import run_hosts
from tests.local.trees import read_tree


def put(store: ObjectStore, tmp_path: Path, *keys: str) -> None:
    """Store one object per key in the bucket `data`. Its content is the key."""
    for key in keys:
        path = tmp_path / "upload"
        path.write_text(key)
        store.put("data", key, path)


def list_paths(store: ObjectStore, uri: str) -> list[str]:
    return [path for path, _ in inputs.select_objects(store, uri, "test")]


def test_input_prefix_is_a_key_prefix(store: ObjectStore, tmp_path: Path) -> None:
    put(store, tmp_path, "train/a", "train/deep/b", "train-01/c", "other")
    assert list_paths(store, "s3://data/train/") == ["a", "deep/b"]
    assert list_paths(store, "s3://data/train") == ["train-01/c", "a", "deep/b"]
    assert list_paths(store, "s3://data/train/de") == ["deep/b"]
    assert list_paths(store, "s3://data/other") == ["other"]
    assert len(list_paths(store, "s3://data")) == 4


def test_prefix_without_objects_raises(store: ObjectStore) -> None:
    with pytest.raises(ValidationError, match='No S3 objects found under S3 URL "s3://data/none" given in test'):
        inputs.select_objects(store, "s3://data/none", "test")


def test_inputs_are_hard_links_to_objects(store: ObjectStore, tmp_path: Path) -> None:
    put(store, tmp_path, "train/a")
    folder = inputs.link_objects(inputs.select_objects(store, "s3://data/train/", "test"), tmp_path / "linked")
    assert (folder / "a").samefile(store.get("data", "train/a").path)


def test_path_collision_raises(store: ObjectStore, tmp_path: Path) -> None:
    put(store, tmp_path, "train/train-01/a", "train-01/a")
    with pytest.raises(CannotRunError, match="has the same path as another object, train-01/a"):
        inputs.link_objects(inputs.select_objects(store, "s3://data/train", "test"), tmp_path / "linked")


class HostWithFiles:
    """An ended host with one folder of files."""

    def __init__(self, name: str, files: Mapping[str, str]) -> None:
        self.name = name
        self.files = files

    def copy(self, path: str, target: Path) -> Tree:  # noqa: ARG002  the host has one folder
        for name, content in self.files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(content)
        return read_tree(target)


def merge(tmp_path: Path, *hosts: HostWithFiles) -> tuple[dict[str, str], list[str]]:
    """Merge the outputs of hosts; return the contents of the files by name, and the notes for the log."""
    notes: list[str] = []
    tree = outputs.merge_outputs(hosts, "out", tmp_path / "merged", notes.append)  # type: ignore[arg-type]
    return {name: content.read_text() for name, content in outputs.list_files(tree).items()}, notes


def test_outputs_of_hosts_are_merged(tmp_path: Path) -> None:
    files, notes = merge(
        tmp_path, HostWithFiles("algo-1", {"a": "1", "d/x": "1"}), HostWithFiles("algo-2", {"b": "2", "d/y": "2"})
    )
    assert (files, notes) == ({"a": "1", "d/x": "1", "b": "2", "d/y": "2"}, [])


def test_identical_files_of_hosts_are_merged(tmp_path: Path) -> None:
    assert merge(tmp_path, HostWithFiles("algo-1", {"a": "1"}), HostWithFiles("algo-2", {"a": "1"})) == (
        {"a": "1"},
        [],
    )


def test_different_files_of_two_hosts_are_noted(tmp_path: Path) -> None:
    files, notes = merge(tmp_path, HostWithFiles("algo-1", {"a": "1"}), HostWithFiles("algo-2", {"a": "2"}))
    assert files == {"a": "1"}
    assert notes == [
        "a of algo-2 differs from the file of another host and was not stored: use a different file name on each host"
    ]


def test_file_in_place_of_a_folder_is_noted(tmp_path: Path) -> None:
    files, notes = merge(tmp_path, HostWithFiles("algo-1", {"a": "1"}), HostWithFiles("algo-2", {"a/b": "2"}))
    assert files == {"a": "1"}
    assert "another host has a file at the path of its folder" in notes[0]


class HostWithLinks:
    """An ended host with links and files."""

    def __init__(self, name: str, links: Mapping[str, str], files: Mapping[str, str]) -> None:
        self.name = name
        self._files_host = HostWithFiles(name, files)
        self._links = links

    def copy(self, path: str, target: Path) -> Tree:
        for name, destination in self._links.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).symlink_to(destination)
        return self._files_host.copy(path, target)


def test_links_of_two_hosts_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    """Each link alone leads to a path in the folder. Together, they would lead to `victim`, outside of the folder."""
    (tmp_path / "victim").mkdir()
    deep = "p/q/q/q"
    first_host = HostWithLinks("algo-1", {f"{deep}/r": "../../../../s"}, {"s/keep": ""})
    second_host = HostWithLinks("algo-2", {f"{deep}/r/t/l": "../../../victim"}, {"s/t/l/planted": "x"})
    files, notes = merge(tmp_path, first_host, second_host)  # type: ignore[arg-type]
    assert files == {"s/keep": "", "s/t/l/planted": "x"}
    assert notes == [f"{deep}/r/t/l of algo-2 was not stored: another host has a link at the path of its folder"]


def test_no_output_is_uploaded_if_one_name_cannot_be_a_key(store: ObjectStore, tmp_path: Path) -> None:
    put(store, tmp_path, "out/b")
    (tmp_path / "output" / "b").mkdir(parents=True)
    (tmp_path / "output" / "a").write_text("")
    (tmp_path / "output" / "b" / "c").write_text("")
    with pytest.raises(Exception, match="out/b"):
        outputs.upload(store, read_tree(tmp_path / "output"), "s3://data/out")
    assert [item.key for item in store.list("data")] == ["out/b"]


def test_archive_contains_the_files_of_the_folder(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "model" / "1").mkdir(parents=True)
    (tmp_path / "model" / "1" / "w").write_text("weights")
    outputs.upload_archive(store, read_tree(tmp_path / "model"), "s3://data/model.tar.gz", tmp_path)
    with tarfile.open(store.get("data", "model.tar.gz").path) as archive:
        assert archive.getnames() == ["1", "1/w"]


class EndingHost:
    """A host that ends with exit code 9 when a test sets `ended`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = threading.Event()

    def lines(self) -> Iterator[Line]:
        return iter(())

    def wait(self) -> Exit:
        self.ended.wait()
        return Exit(9)

    def stop(self, grace: float) -> None:
        """Do nothing: the host ends later."""


def test_exit_code_of_an_interrupted_host_is_not_a_failure(tmp_path: Path) -> None:
    hosts, events = [EndingHost("algo-1"), EndingHost("algo-2")], EventQueue()
    events.send(Interruption())
    for host in hosts:
        host.ended.set()
    outcome = run_hosts(tmp_path, events, *hosts)
    assert (outcome.first_failed_host, outcome.interruption) == (None, Interruption())


class HostWithFailingStop(EndingHost):
    """A host whose first stop fails with an error of the engine."""

    def __init__(self) -> None:
        super().__init__("algo-1")
        self._stop_count = 0

    def stop(self, grace: float) -> None:  # noqa: ARG002
        self._stop_count += 1
        if self._stop_count == 1:
            raise RuntimeError("500 Server Error")
        self.ended.set()


def test_failed_stop_is_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle_hosts, "STOP_RETRY_DELAY", 0.01)
    events = EventQueue()
    events.stop(StopReason.REQUEST)
    outcome = run_hosts(tmp_path, events, HostWithFailingStop())
    assert outcome.exits == {"algo-1": Exit(9)}


CONTINUOUS_RANGE = Range("rate", "Continuous", 0.001, 0.2, "Logarithmic")
REVERSE_LOG_RANGE = Range("momentum", "Continuous", 0.6, 0.999, "ReverseLogarithmic")
INTEGER_RANGE = Range("epochs", "Integer", 1, 50)
CATEGORICAL_RANGE = Range("optimizer", "Categorical", values=("sgd", "adam"))


@pytest.mark.parametrize("strategy", ["Random", "Bayesian"])
def test_same_seed_gives_the_same_values_within_ranges(strategy: str) -> None:
    ranges = (CONTINUOUS_RANGE, REVERSE_LOG_RANGE, INTEGER_RANGE, CATEGORICAL_RANGE)

    def propose_five() -> list[dict[str, str]]:
        search = TrialSearch(strategy, ranges, minimise=True, seed=7)
        proposals = []
        for number in range(5):
            proposals.append(search.propose(str(number), number))
            search.add_result(str(number), proposals[-1], float(proposals[-1]["rate"]))
        return proposals

    assert propose_five() == propose_five()
    for hyperparameters in propose_five():
        assert 0.6 <= float(hyperparameters["momentum"]) <= 0.999
        assert 1 <= int(hyperparameters["epochs"]) <= 50


def test_from_hyperparameter_reverses_to_hyperparameter() -> None:
    for item, value in (
        (CONTINUOUS_RANGE, 0.25),
        (REVERSE_LOG_RANGE, 0.25),
        (INTEGER_RANGE, 7),
        (CATEGORICAL_RANGE, "adam"),
    ):
        assert item.from_hyperparameter(item.to_hyperparameter(value)) == value
    assert REVERSE_LOG_RANGE.to_hyperparameter(0.25) == "0.75"


@pytest.mark.parametrize("minimise", [True, False])
def test_search_uses_results_from_before_a_restart(minimise: bool) -> None:
    search = TrialSearch("Bayesian", (CONTINUOUS_RANGE,), minimise=minimise, seed=1)
    for number in range(12):  # the result of a trial is its rate, so low rates are best
        rate = 0.002 + 0.015 * number
        search.add_result(f"old-{number}", {"rate": str(rate)}, rate if minimise else -rate)
    rates = [float(search.propose(str(number), number)["rate"]) for number in range(6)]
    assert sum(rate < 0.05 for rate in rates) >= 5


UNIT_RANGE = Range("x", "Continuous", 0.0, 1.0)


def test_search_inherits_results_within_its_ranges() -> None:
    search = TrialSearch("Bayesian", (UNIT_RANGE,), minimise=True, seed=1)
    for number in range(12):
        search.inherit_result({"x": str(0.08 * number), "other": "1"}, 0.08 * number)
    for hyperparameters in ({"x": "3"}, {"x": "many"}, {"other": "1"}):
        search.inherit_result(hyperparameters, -5.0)
    x_values = [float(search.propose(str(number), number)["x"]) for number in range(6)]
    assert sum(x < 0.3 for x in x_values) >= 5


def count_reports(objectives: Mapping[str, float], minimum: int = 1, maximum: int = 9) -> dict[str, int]:
    """Run the trials one after another. Each trial always reports the same objective. Return how many times each trial
    reports before Hyperband stops it."""
    search = TrialSearch(
        "Hyperband", (UNIT_RANGE,), minimise=True, seed=1, resources=HyperbandResources(minimum, maximum)
    )
    counts = {}
    for number, (name, objective) in enumerate(objectives.items()):
        hyperparameters = search.propose(name, number)
        steps = (step for step in range(1, 100) if search.report(name, [objective] * step))
        counts[name] = next(steps)
        search.add_result(name, hyperparameters, objective, stopped=counts[name] <= maximum)
    return counts


GOOD_TRIALS = {f"good-{number}": 0.1 - number / 1000 for number in range(9)}
BAD_TRIALS = {f"bad-{number}": 5.0 for number in range(9)}


def test_hyperband_stops_worse_trials_earlier() -> None:
    counts = count_reports(GOOD_TRIALS | BAD_TRIALS)
    # each good trial is the best trial until it reaches the maximum
    assert {counts[name] for name in GOOD_TRIALS} == {10}
    assert sum(counts[name] < 9 for name in BAD_TRIALS) >= 5  # one of Hyperband's brackets stops no trial early


def test_hyperband_stops_no_trial_before_the_minimum() -> None:
    counts = count_reports(GOOD_TRIALS | BAD_TRIALS, minimum=4, maximum=30)
    assert 4 <= min(counts.values()) < 30


def test_hyperband_continues_trials_after_a_restart() -> None:
    search = TrialSearch(
        "Hyperband", (UNIT_RANGE,), minimise=True, seed=1, resources=HyperbandResources(minimum=1, maximum=3)
    )
    search.add_running_trial("running", {"x": "0.5"})
    assert not search.report("running", [1.0, 1.0])
    assert search.report("running", [1.0] * 4)
    search.add_result("running", {"x": "0.5"}, 1.0, stopped=True)


@pytest.mark.parametrize("name", ["epochs", "num_epochs"])
def test_hyperband_infers_max_resource_from_epochs(name: str) -> None:
    assert read_resources({"Strategy": "Hyperband"}, {name: "7"}) == HyperbandResources(minimum=1, maximum=7)


def test_bayesian_search_beats_random_search() -> None:
    def find_smallest_loss(strategy: str, seed: int) -> float:
        search = TrialSearch(strategy, (Range("x", "Continuous", 0.0, 1.0),), minimise=True, seed=seed)
        results = []
        for number in range(20):
            hyperparameters = search.propose(str(number), number)
            results.append((float(hyperparameters["x"]) - 0.37) ** 2)
            search.add_result(str(number), hyperparameters, results[-1])
        return min(results)

    wins = sum(find_smallest_loss("Bayesian", seed) < find_smallest_loss("Random", seed) for seed in range(10))
    assert wins >= 7


@pytest.mark.parametrize(
    ("name", "cpus", "gib", "has_gpus"),
    [
        ("ml.m5.large", 2, 8, False),
        ("ml.c5.4xlarge", 16, 32, False),
        ("ml.t3.medium", 2, 4, False),
        ("ml.r5.xlarge", 4, 32, False),
        ("ml.g4dn.xlarge", 4, 16, True),
    ],
)
def test_instance_type_has_limits_and_gpus(name: str, cpus: int, gib: int, has_gpus: bool) -> None:
    limits = instances.find_limits(name)
    assert limits is not None
    assert (limits.cpus, limits.memory_bytes) == (cpus, gib * instances.GIB)
    assert instances.has_gpus(name) is has_gpus


def test_unknown_instance_type_has_no_limits() -> None:
    assert instances.find_limits("ml.trn1.2xlarge-x") is None


@pytest.mark.parametrize("epochs", ["²", "1_0", "-1", "9" * 5000, ""])
def test_hyperband_with_invalid_epochs_raises(epochs: str) -> None:
    with pytest.raises(ValidationError, match="MaxResource of HyperbandStrategyConfig is missing"):
        read_resources({"Strategy": "Hyperband"}, {"epochs": epochs})


def test_range_with_duplicate_values_that_an_older_server_stored_is_read() -> None:
    """Older servers accepted duplicates. Describe must not fail for a job with duplicates."""
    ranges = {"CategoricalParameterRanges": [{"Name": "a", "Values": ["x", "x"]}]}
    (item,) = read_ranges(ranges)
    search = TrialSearch("Random", (item,), minimise=True, seed=1)
    assert search.propose("job", 0) == {"a": "x"}


def test_tuned_hyperparameters_are_listed_by_range_type() -> None:
    limits = {"MinValue": "1", "MaxValue": "2"}
    ranges = {
        "CategoricalParameterRanges": [{"Name": "c", "Values": ["x", "y"]}],
        "ContinuousParameterRanges": [{"Name": "b", **limits}],
        "IntegerParameterRanges": [{"Name": "a", **limits}],
    }
    assert list_tuned_names(ranges) == [item.name for item in read_ranges(ranges)] == ["a", "b", "c"]
