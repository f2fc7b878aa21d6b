"""The engine: tokens in, tokens out. No text and no gRPC in this room."""
