"""Estimate human poses with HRNet and derive person crops from the key points."""
