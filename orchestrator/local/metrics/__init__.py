"""Store for time series of metrics."""
