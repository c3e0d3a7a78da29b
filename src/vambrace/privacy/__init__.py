"""What a model tells about the data it was trained on."""
