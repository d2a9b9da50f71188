"""From keypoints to images: overlays, ControlNet hints, contact sheets, heat maps, loss plots.

In: uint8 RGB images, points in pixels, maps. Out: uint8 RGB images [H, W, 3]. Knows no model."""
