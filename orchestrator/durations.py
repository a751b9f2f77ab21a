"""Formats durations."""


def format_duration(seconds: float) -> str:
    """Return a duration as `4.1 s`, `2 min 05 s` or `1 h 02 min`."""
    if seconds < 59.95:  # from 59.95 on, one decimal would give "60.0 s"
        return f"{seconds:.1f} s"
    minutes, remaining_seconds = divmod(round(seconds), 60)
    return f"{minutes} min {remaining_seconds:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
