"""The forward pass of bfloat16 models on a CPU: compiled code, one call a step."""
