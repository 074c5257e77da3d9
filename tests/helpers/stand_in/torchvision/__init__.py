"""The few functions of torchvision by which transformers' image processors cut and resize, written with torch.

For tests where torchvision cannot be installed, such as beside a build of torch without a matching one. It must come
first on the path of a process of its own: transformers chooses other image processors where it finds torchvision.
"""

__version__ = "0.0"
