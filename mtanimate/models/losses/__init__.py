"""The losses of section 3.3, and those on faces."""
