"""Where the visual tokens of each family of VLMs lie in the image: one module per family."""
