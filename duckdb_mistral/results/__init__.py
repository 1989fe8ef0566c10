"""From result files to rows that can be read."""
