"""A successful and a failing run of this job, for the tests of all images."""

from tests.images.training import make_trainer_example

EXAMPLE = make_trainer_example("model.pth", max_megabytes=1700)
