"""How the network is run, without a change of what it computes: compiled, by another engine, on the cores left free."""
