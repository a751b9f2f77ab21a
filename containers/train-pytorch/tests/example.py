"""A good and a bad run of this job, for the tests that every image inherits."""

from tests.images.training import trainer_example

EXAMPLE = trainer_example("model.pth", size_limit=1700)
