"""What the experts do: routing, ablation, contribution, specialisation."""
