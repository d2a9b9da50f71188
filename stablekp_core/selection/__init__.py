"""From N learned tokens to the K keypoints.

In: learned tokens, training images. Out: the chosen tokens, by the paper's rule (Eq. 9 ranking by KL, Eq. 10 farthest
points and votes) or by prediction, their refined embeddings, and the network that finds occlusion."""
