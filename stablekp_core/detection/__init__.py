"""Detecting the keypoints on images.

In: a backbone, tokens, images. Out: keypoints with confidence, occlusion and, if asked for, heat maps. Holds Eq. 11,
the average over random affine views."""
