"""Strings: inflection of words, and text of data for display."""
