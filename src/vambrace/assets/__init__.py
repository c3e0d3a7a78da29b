"""Files that are worth protecting: sealed so that only some can read them, obfuscated so that reading tells less."""
