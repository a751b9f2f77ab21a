"""The life cycle of everything that runs: plan, hosts, outcome."""
