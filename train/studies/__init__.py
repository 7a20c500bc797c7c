"""Measurements on drawn people: simulated users, policies side by side, ablation, parameter counts, `mini`."""
