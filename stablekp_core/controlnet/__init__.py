"""A data set to train one's own ControlNet with.

In: images and their keypoints, captions. Out: a folder of pairs of image and drawn keypoints, in the layout that
training scripts read."""
