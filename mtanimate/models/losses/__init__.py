"""The losses of section 3.3, a file a term."""
