"""What a network costs: parameters, multiply-adds, time of inference, memory of training."""
