"""The command line, `microjobs`."""


def main() -> int:
    return 0
