"""ProX: a small program for each document that says which of its lines go, and which strings.

Source: Zhou et al. 2024, Programming Every Example (arXiv:2409.17115).
"""
