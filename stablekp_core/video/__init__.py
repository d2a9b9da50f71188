"""From keypoints of single frames to steady keypoints.

In: keypoints of the frames of a video. Out: the same with identities kept, short gaps filled and jitter smoothed.
Nothing of this is in the paper."""
