"""Reading from the Hugging Face Hub, and its errors in plain words."""
