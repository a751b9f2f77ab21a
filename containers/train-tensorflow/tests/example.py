"""A successful and a failing run of this job, for the tests of all images."""

from tests.images.training import make_trainer_example

EXAMPLE = make_trainer_example("1/saved_model.pb", max_megabytes=2300)
