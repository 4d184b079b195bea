"""Rules beyond SAM 2, none of which needs training: which frames are remembered, crowds, look-alikes, shot changes."""
