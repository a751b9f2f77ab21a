"""MLflow tracking servers and apps."""
