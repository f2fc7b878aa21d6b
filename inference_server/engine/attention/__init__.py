"""Attention over the KV cache, one implementation for each kind of device, and the slow one that they are tested by."""
