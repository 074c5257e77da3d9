"""Training a connector between a frozen vision encoder and a frozen language model on captions, as the paper does."""
