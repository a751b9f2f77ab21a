"""Where jobs run: `docker` in containers, `process` in virtual environments, behind the interface in `base`."""
