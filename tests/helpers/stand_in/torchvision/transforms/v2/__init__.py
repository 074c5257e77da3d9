"""As `torchvision.transforms.v2`."""
