"""One short file a family: what is measured per sample, and what it means."""
