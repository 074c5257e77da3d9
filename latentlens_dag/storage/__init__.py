"""The files of a home: where they lie, how they are written whole, and the records of what wrote them."""
