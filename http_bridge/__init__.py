"""The HTTP bridge: OpenAI's JSON on one side, chat.v1 over gRPC on the other. No model, no torch."""
