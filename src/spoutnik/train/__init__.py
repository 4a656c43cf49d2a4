"""Training: losses and algorithms as pure functions, stages that resume to the bit around them."""
