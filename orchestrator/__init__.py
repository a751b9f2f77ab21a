"""Who launches: SageMaker on localhost (`local`), and the command line."""
