"""As `torchvision.io`: nothing, since nothing is read through it."""
