"""What stands in each section of the page, as plain values: `Results` in, dataclasses for the templates out."""
