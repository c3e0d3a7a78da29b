"""The words every other floor speaks: values and protocols, importable without torch."""
