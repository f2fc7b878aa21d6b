"""Text: characters and token ids. No tensors and no gRPC in this room."""
