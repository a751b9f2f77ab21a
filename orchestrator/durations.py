"""Durations for people."""


def duration(seconds: float) -> str:
    """`4.1 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 59.95:  # what rounds to 60.0 is a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
