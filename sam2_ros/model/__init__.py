"""The SAM 2 network (arXiv 2408.00714): stateless modules in plain PyTorch that know nothing of frames or objects."""
