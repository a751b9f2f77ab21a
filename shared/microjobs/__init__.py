"""The code that all images and the launcher share: the contract, the entry point, the model bundle, array files."""
