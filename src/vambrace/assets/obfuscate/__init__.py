"""Models whose structure and parameters tell less, and compute the same. Never a substitute for sealing."""
