"""A study: its lenses, their neighbors of every token, and what is counted of them."""
