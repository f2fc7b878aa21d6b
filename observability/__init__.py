"""Logs and metrics of both programs. Knows neither of them."""
