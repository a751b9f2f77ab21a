"""Tests of MLflow tracking servers and apps."""
