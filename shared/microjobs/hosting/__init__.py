"""The HTTP server of all images that serve: SageMaker's hosting contract in front of one model.

An image supplies a function that finds the model in the model folder (`model_source`), and `server.serve` runs it.
`shared/hosting.in` lists the packages that these modules need.
"""
