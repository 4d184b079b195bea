"""What training clips are made of: photographs, cut-outs, motion, looks and recorded videos."""
