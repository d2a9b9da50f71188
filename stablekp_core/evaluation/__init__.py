"""The paper's protocols.

In: a data set with its label files, tokens or settings to train them. Out: the paper's metrics, after the linear
regression from keypoints to landmarks (section 4 of the paper), with finished stages kept on disk."""
