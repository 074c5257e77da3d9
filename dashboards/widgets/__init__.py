"""What the pages share: the address, the components, text made safe, figures."""
