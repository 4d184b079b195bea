"""How good the tracker is, in numbers: the metrics, the protocols, and the floors to compare with."""
