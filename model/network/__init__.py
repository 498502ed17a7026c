"""The Inception-v3 network: backbone, feature layers, head and dtype policy."""
