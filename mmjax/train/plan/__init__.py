"""Plans a run: compiles its step for a pod that isn't there, and counts what the program takes."""
