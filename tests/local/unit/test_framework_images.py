"""Names of AWS's framework images, and their substitutes."""

from unittest.mock import Mock

import pytest

from microjobs_orchestrator.local import framework_images
from tests.conftest import CONTAINERS, make_image_name

ACCOUNT = "683313688378"


def make_uri(name: str, host: str = "us-east-1.amazonaws.com", account: str = ACCOUNT) -> str:
    return f"{account}.dkr.ecr.{host}/{name}"


def find_job(name: str) -> str | None:
    image = framework_images.parse(name)
    return None if image is None else image.framework.job


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("sagemaker-scikit-learn:0.23-1-cpu-py3", "preprocess"),
        ("tensorflow-training:2.3.1-cpu-py37", "train-tensorflow"),
        ("tensorflow-inference:2.14-gpu", "train-tensorflow"),
        ("sagemaker-tensorflow-serving:1.12-cpu", "train-tensorflow"),
        ("sagemaker-tensorflow-scriptmode:1.12-cpu-py3", "train-tensorflow"),
        ("pytorch-training:2.3.0-gpu-py311-cu121-ubuntu20.04-sagemaker", "train-pytorch"),
        (f"pytorch-inference@sha256:{'0' * 64}", "train-pytorch"),
        ("pytorch-inference-graviton:2.1-cpu-py310", "train-pytorch"),
        ("sagemaker-xgboost:1.7-1", None),
        ("my-pytorch-training:1", None),
        ("pytorch-training/mine:1", None),
    ],
)
def test_repository_selects_the_job(name: str, job: str | None) -> None:
    assert find_job(make_uri(name)) == job


@pytest.mark.parametrize(
    "host",
    [
        "cn-north-1.amazonaws.com.cn",
        "us-gov-west-1.amazonaws.com",
        "us-iso-east-1.c2s.ic.gov",
        "eu-west-3.amazonaws.com",
    ],
)
def test_all_regions_and_accounts_are_accepted(host: str) -> None:
    assert find_job(make_uri("pytorch-training:2.3-cpu-py311", host, "727897471807")) == "train-pytorch"


@pytest.mark.parametrize(
    "name",
    [
        "pytorch-training:2.3-cpu-py311",
        make_uri("pytorch-training:2.3", account="000000000000"),
        make_uri("pytorch-training:2.3", "us-east-1.amazonaws.com.example.com"),
        f"evil/{make_uri('pytorch-training:2.3')}",
    ],
)
def test_other_registries_are_not_substituted(name: str) -> None:
    assert framework_images.parse(name) is None


def test_cuda_variant_replaces_gpu_images_if_the_engine_has_it() -> None:
    cpu, cuda = make_image_name("train-pytorch"), f"{make_image_name('train-pytorch')}-cuda"
    gpu_image = framework_images.parse(make_uri("pytorch-training:2.3-gpu-py311"))
    cpu_image = framework_images.parse(make_uri("pytorch-training:2.3-cpu-py311"))
    assert gpu_image is not None
    assert cpu_image is not None
    assert gpu_image.find_substitute(lambda: {cpu, cuda}) == cuda
    assert gpu_image.find_substitute(lambda: {cpu}) == cpu
    list_images = Mock()
    assert cpu_image.find_substitute(list_images) == cpu
    list_images.assert_not_called()


@pytest.mark.parametrize(
    ("name", "job", "lock", "package", "end_of_message"),
    [
        ("sagemaker-scikit-learn:0.23-1-cpu-py3", "preprocess", "cpu", "scikit-learn", "0.23-1, {} instead of 3"),
        ("tensorflow-training:2.3.1-cpu-py37", "train-tensorflow", "cpu", "tensorflow-cpu", "2.3.1, {} instead of 3.7"),
        ("tensorflow-inference:2.14-gpu", "train-tensorflow", "cuda", "tensorflow", "2.14, {}"),
        ("pytorch-training:2.3-gpu-py311", "train-pytorch", "cuda", "torch", "2.3, {} instead of 3.11"),
        ("pytorch-training", "train-pytorch", "cpu", "torch", "the requested version, {}"),
    ],
)
def test_differences_name_both_versions(name: str, job: str, lock: str, package: str, end_of_message: str) -> None:
    image = framework_images.parse(make_uri(name))
    assert image is not None
    (lock_line,) = [
        text for text in (CONTAINERS / job / f"{lock}.lock").read_text().splitlines() if text.startswith(f"{package}==")
    ]
    version = lock_line.removeprefix(f"{package}==").split()[0].removesuffix("+cpu")
    substitute = make_image_name(job) + ("-cuda" if lock == "cuda" else "")
    assert image.describe_differences(substitute) == (
        f"{substitute} runs in place of {make_uri(name)} (--framework-images): "
        f"{image.framework.name} {version} instead of {end_of_message.format('Python 3.11')}"
    )


def test_job_without_a_lock_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microjobs_orchestrator.local.own_images.JOBS_FOLDER", CONTAINERS / "missing")
    image = framework_images.parse(make_uri("sagemaker-scikit-learn:1.2-1-cpu-py3"))
    assert image is not None
    assert "scikit-learn instead of 1.2-1" in image.describe_differences("preprocess")
