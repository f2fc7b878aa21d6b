"""Short clients to start from, one for each way in. Each takes an address, and tests run them all."""
