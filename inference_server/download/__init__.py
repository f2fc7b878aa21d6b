"""`python -m inference_server.download`: a checkpoint from a model hub into a directory."""
