"""Measures and the report."""
