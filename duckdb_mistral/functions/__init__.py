"""The SQL functions."""
