"""Sealed files: any file, folder or set of tensors, for chosen readers only. Format: docs/formats/sealed-v1.md."""
