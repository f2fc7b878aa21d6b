"""Logs, metrics, signals and addresses of both programs. Knows neither of them."""
