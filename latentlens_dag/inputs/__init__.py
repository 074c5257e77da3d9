"""What a study reads: texts, images and their annotated regions."""
