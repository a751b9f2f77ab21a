"""SageMaker on localhost: a server that speaks AWS's protocols and really runs the jobs."""
