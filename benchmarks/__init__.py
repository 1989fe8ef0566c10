"""How fast and how small: every figure is a ratio of contenders that took turns in one run."""
