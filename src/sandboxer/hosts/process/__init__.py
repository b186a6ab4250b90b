"""Run programs on this machine: started with exactly what they need, tracked, fed, ended."""
