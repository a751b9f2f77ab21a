"""The contract's paths for scripts in a client's environment."""

from microjobs.contract import Layout


def processing(name: str) -> str:
    return str(Layout().processing(name))
