"""The contextual index: building, opening and searching it."""
