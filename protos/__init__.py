"""The contract: protobuf definitions and the Python code generated from them."""
