"""The SAM 2 network (arXiv 2408.00714): stateless modules in plain PyTorch, without frames or objects."""
