"""Training: presets, the learner and its steps, the loop over epochs."""
