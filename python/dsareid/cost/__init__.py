"""The cost of a network: parameters, multiply-adds, time of inference, memory of training."""
