"""The network as ONNX graphs, for runtimes without PyTorch."""
