"""Definitions of pipelines. The code parses their JSON text, and checks the resulting values. It needs no server.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/pipelines-overview.html, and the definitions that the SageMaker
SDKs generate.
"""
