"""How this process waits, stops and dies."""
