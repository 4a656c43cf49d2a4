"""Plans: what training, reinforcement learning, distillation and serving would take, with intervals and sources. Imports no torch."""
