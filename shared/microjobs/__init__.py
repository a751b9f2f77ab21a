"""The code that all images and the orchestrator share: the contract, the entry point, the model bundle, array files."""
