"""Training: simulated prompts, the unrolled tracker, the paper's losses and the loop around them."""
