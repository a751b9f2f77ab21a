"""The HTTP server of all images that serve: it implements SageMaker's hosting contract for one or several models.

Each image has a function that finds the model in the model folder (`model_source.FindModelSource`). `server.serve`
calls this function, and serves the model. `shared/hosting.in` lists the packages that these modules need.
"""
