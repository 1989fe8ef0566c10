"""From a row to a request line in a file."""
