"""Definitions of pipelines: JSON text becomes checked values. The code needs no server.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-overview.html, and the definitions that the SageMaker
SDKs generate.
"""
