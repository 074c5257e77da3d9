"""Language models and vision-language models: loading, reading and checking them."""
