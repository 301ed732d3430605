"""Few trainable parameters on a frozen encoder: heads, tuners, the guard, and what mattered."""
