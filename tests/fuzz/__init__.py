"""Damaged and hostile inputs for every reader of outside data: `python -m tests.fuzz`, which `make fuzz` runs."""
