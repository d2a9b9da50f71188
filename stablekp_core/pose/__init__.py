"""From unnamed keypoints to named joints, and back.

In: keypoints, a few labelled images or a correspondence made by hand. Out: landmark maps, skeletons, POSE_KEYPOINT,
AP-10K and named COCO poses. The linear regression of the paper's evaluation, made useful."""
