"""Measurements. None is a test: machines differ, and the figures are for people."""
