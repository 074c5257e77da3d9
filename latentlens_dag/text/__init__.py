"""The strings that people see: the forms of words."""
