"""A good and a bad run of this job, for the tests that every image inherits."""

from tests.images.training import trainer_example

EXAMPLE = trainer_example("1/saved_model.pb", size_limit=2300)
