"""From unnamed keypoints to named joints, and the inverse.

In: keypoints, a few labelled images or a correspondence made by hand. Out: landmark maps, skeletons, POSE_KEYPOINT,
AP-10K and named COCO poses. Holds the linear regression of the paper's evaluation (Sec. 4.1)."""
