"""The runtimes: `docker` runs jobs in containers, `process` in virtual environments. `base` has their interface."""
