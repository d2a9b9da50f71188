"""Generating images in a given pose: the learned keypoints steer Stable Diffusion's sampling.

In: tokens and unlabelled images, then a pose. Out: images in that pose. Not in the paper; docs/guidance.md tells how it
works and what was measured.
"""
