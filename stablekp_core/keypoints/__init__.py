"""The data: keypoints of images and learned tokens, and their files.

In and out: arrays in memory, COCO JSON, CSV, safetensors. Knows no model and no equation; the spatial prior and the
mean shape are statistics of positions alone."""
