"""What every image and the launcher share: the contract, running a job, the model bundle, array files."""
