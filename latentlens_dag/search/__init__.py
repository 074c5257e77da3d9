"""Exact nearest neighbors: arrays in, arrays out."""
