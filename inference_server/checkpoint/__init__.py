"""A checkpoint's files as far as names, JSON and headers tell: what can be refused before torch is imported."""
