"""CloudWatch's alarms. They are evaluated when their state is needed, so that unused alarms cost nothing."""
