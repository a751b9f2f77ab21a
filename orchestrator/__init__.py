"""The command line `microjobs`, and the local server (`local`)."""
