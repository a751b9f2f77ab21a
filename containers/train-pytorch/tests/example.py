"""A successful and a failing run of this job, for the tests of all images."""

from tests.images.training import trainer_example

EXAMPLE = trainer_example("model.pth", max_megabytes=1700)
