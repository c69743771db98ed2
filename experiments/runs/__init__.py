"""Runs: from options to a finished folder."""
