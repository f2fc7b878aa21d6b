"""Tests of the whole service, most of them against real programs on free ports."""
