"""Parameter-efficient training on a frozen encoder: heads, tuners, gradient guard, layer importance."""
