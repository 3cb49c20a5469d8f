"""Trains experiments: the loop, the step, the guard against bad steps, and the plan for a pod."""
